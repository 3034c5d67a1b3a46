"""Histories and counted failures are kept for their time, by the database's clock, and no longer."""

from __future__ import annotations

from gateway import ids
from gateway.connections.retention import Retention
from tests.web.conftest import Api

COUNTS = """SELECT (SELECT count(*) FROM gateway.history) AS history, (SELECT count(*) FROM gateway.provider_failures) AS failures"""


async def test_what_is_old_is_dropped(api: Api) -> None:
    """Failures after the week from which the usual rate is taken, histories after their days."""
    made = await api("POST", "/v1/connections", {"tenant": "acme", "integration": "toy"})
    region, connection = api.gateway.regions.home, ids.parse(ids.CONNECTION, made.json()["id"])
    await region.database.execute(
        """INSERT INTO gateway.provider_failures (provider, error_class, at, tenant_id, connection_id)
           VALUES ('toy', 'refused', gateway.now(), 'acme', $1)""",
        connection,
    )
    kept = []
    for days in (6.9, 7.1, 29, 31):
        await region.database.execute("UPDATE gateway.clock SET shifted_by = make_interval(secs => $1)", days * 86400)
        await Retention(region.database, 30).run_once()
        row = await region.database.fetchrow(COUNTS)
        assert row is not None
        kept.append((row["history"], row["failures"]))
    assert kept == [(1, 1), (1, 0), (1, 0), (0, 0)]
