"""Grants, sealed tokens and data keys; connect sessions."""

from typing import Any

from migrations import run_sql_beside

revision, down_revision = "0002", "0001"


def upgrade(bind: Any) -> None:
    run_sql_beside(__file__, bind)
