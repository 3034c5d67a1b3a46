"""Fences, history, checks, the condition of providers, deliveries set aside."""

from typing import Any

from migrations import run_sql_beside

revision, down_revision = "0003", "0002"


def upgrade(bind: Any) -> None:
    run_sql_beside(__file__, bind)
