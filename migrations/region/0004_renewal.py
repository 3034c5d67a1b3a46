"""Leases and intents of refreshes, processes, rotations, breakers, the renewal unit and what it is planned from."""

from typing import Any

from migrations import run_sql_beside

revision, down_revision = "0004", "0003"


def upgrade(bind: Any) -> None:
    run_sql_beside(__file__, bind)
