"""What `make bench-rotate` proves at full size, small: both rotations beside readers, killed half-way and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.database import Database
from tests.benchmarks._rotation import Bench
from tests.benchmarks.rotate import measure


@pytest.mark.parametrize(
    ("rows", "tenants", "batch"),
    [pytest.param(2_000, 50, 50, marks=pytest.mark.long), pytest.param(100_000, 1_000, 2_000, marks=pytest.mark.long)],
)
async def test_both_rotations_beside_readers(
    database: Database, dsn: str, tmp_path: Path, rows: int, tenants: int, batch: int
) -> None:
    """No failed read, nothing lost or counted twice, the old version retired at the end."""
    async with Bench(dsn, tmp_path, database, batch=batch, settle_s=0.0) as bench:
        figures = await measure(bench, tenants=tenants, rows=rows, data_keys=rows)
    assert figures["failed reads"] == 0
    assert figures["reads"] > 100
    assert rows > figures["killed at"] >= rows / 2
    assert rows > figures["killed at (data)"] >= rows / 2
