"""Control begins: tenants, integrations, API keys."""

from typing import Any

from migrations import run_sql_beside

revision, down_revision = "0001", None


def upgrade(bind: Any) -> None:
    run_sql_beside(__file__, bind)
