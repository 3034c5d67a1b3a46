"""The two lines of schema: `control` and `region`. Forward only, plain SQL, numbered; expand first, contract later.

A revision is two files of one stem: `0001_start.sql`, which is what there is to read, and `0001_start.py`, which tells
Alembic its number and its predecessor. `gateway/migrate.py` runs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run_sql_beside(revision_file: str, bind: Any) -> None:
    """Run the SQL script beside an Alembic revision, in the revision's transaction.

    `bind` is SQLAlchemy's connection, handed to each `upgrade`: Alembic's `op` is a global of the process, and two
    databases may be migrated by one.
    """
    # Any statement through SQLAlchemy opens the transaction. The script goes to the driver itself, whose simple
    # protocol takes many statements at once.
    bind.exec_driver_sql("SET LOCAL statement_timeout = 0")
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    connection: Any = bind.connection.dbapi_connection
    connection.run_async(lambda driver: driver.execute(script))
