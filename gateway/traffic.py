"""When there is traffic, and which connections are used: counted in memory, written once a minute and only if there is news.

The renewal of tokens is planned from both (`subscriptions/policy.py`): whose token is read is renewed ahead, and in the hours
in which the least is going on. What a process that is killed has not written yet is lost, and nobody misses it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from gateway.database import Database, Db

EVERY_S = 60.0
EVERYBODY = ""  # stands for all tenants of an integration; no tenant is called so
HALF_LIFE_S = 7 * 86400.0  # what was counted a week ago weighs half
EXACT_S = 300.0  # a read is written where the last that is written is older
CHUNK = 5000  # connections in one statement

Place = tuple[UUID, str]  # integration, and tenant or EVERYBODY

# The hour is the database's, and as good as a minute's delay lets it be.
COUNT = """
INSERT INTO gateway.traffic_hours AS t (integration_id, tenant_id, hour, weight, as_of)
SELECT n.integration_id, n.tenant_id, extract(hour FROM clock.now AT TIME ZONE 'UTC')::smallint, n.weight, clock.now
  FROM unnest($1::uuid[], $2::text[], $3::float8[]) AS n(integration_id, tenant_id, weight)
 CROSS JOIN (SELECT gateway.now() AS now) AS clock ORDER BY 1, 2
    ON CONFLICT (integration_id, tenant_id, hour) DO UPDATE
   SET weight = t.weight * power(0.5, greatest(extract(epoch FROM excluded.as_of - t.as_of)::float8, 0) / $4) + excluded.weight,
       as_of = excluded.as_of"""
# Whoever was planned as unused is planned anew: a lease is respected, and its holder sees `asked_at`. Rows in order of their
# ids, then turns, like everybody's (`connections/renewals.py`).
USED = """
WITH clock AS MATERIALIZED (SELECT gateway.now() AS now),
used AS MATERIALIZED (
  SELECT r.connection_id, r.reason = 'unused' OR r.reason = 'keep_alive' AND (r.used_at IS NULL OR r.used_at < clock.now - interval '1 hour')
         AS anew
    FROM gateway.renewals r CROSS JOIN clock
   WHERE r.connection_id = ANY ($1::uuid[]) AND (r.used_at IS NULL OR r.used_at < clock.now - make_interval(secs => $2))
   ORDER BY r.connection_id FOR UPDATE OF r),
put AS (
  UPDATE gateway.renewals r
     SET used_at = clock.now, asked_at = CASE WHEN u.anew THEN clock.now ELSE r.asked_at END,
         due_at = CASE WHEN u.anew THEN least(r.due_at, greatest(clock.now, r.lease_until)) ELSE r.due_at END
    FROM used u CROSS JOIN clock WHERE r.connection_id = u.connection_id
  RETURNING r.integration_id, r.tenant_id, r.due_at, u.anew)
INSERT INTO gateway.renewal_queues AS q (integration_id, tenant_id, turn_at)
SELECT integration_id, tenant_id, min(due_at) FROM put WHERE anew GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (integration_id, tenant_id) DO UPDATE SET turn_at = excluded.turn_at WHERE q.turn_at > excluded.turn_at"""


class Traffic:
    """What one process has seen of one region's since it last wrote."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: dict[Place, int] = {}
        self._used: set[UUID] = set()

    def read(self, connection: UUID, integration: UUID, tenant: str) -> None:
        """A token of this connection was asked for, and handed out unless its provider is away.

        On the hot path: two entries, and no clock.
        """
        place = (integration, tenant)
        self._counted[place] = self._counted.get(place, 0) + 1
        self._used.add(connection)

    def delivered(self, integration: UUID) -> None:
        """A delivery of this integration was kept; whose it is only the database knows."""
        place = (integration, EVERYBODY)
        self._counted[place] = self._counted.get(place, 0) + 1

    async def run_once(self) -> None:
        """Write what was seen.    Raises: Unavailable; what was seen is written next time."""
        if not self._counted and not self._used:
            return
        counted, used = self._counted, self._used
        self._counted, self._used = {}, set()
        try:
            await count(self._database, counted)
        except BaseException:
            for place, number in counted.items():
                self._counted[place] = self._counted.get(place, 0) + number
            self._used |= used
            raise
        some = sorted(used)
        for at in range(0, len(some), CHUNK):
            try:
                await note_used(self._database, some[at : at + CHUNK])
            except BaseException:
                self._used.update(some[at:])
                raise


async def count(db: Db, counted: dict[Place, int]) -> None:
    """Add to this hour's. What is a tenant's counts for its integration as well."""
    total = dict(counted)
    for (integration, tenant), number in counted.items():
        if tenant != EVERYBODY:
            whole = (integration, EVERYBODY)
            total[whole] = total.get(whole, 0) + number
    if total:
        columns = [one[0] for one in total], [one[1] for one in total], [float(number) for number in total.values()]
        await db.execute(COUNT, *columns, HALF_LIFE_S)


async def note_used(db: Db, connections: Sequence[UUID]) -> None:
    """Tokens of these connections were read."""
    await db.execute(USED, sorted(connections), EXACT_S)


HOURS = """SELECT t.integration_id, t.tenant_id, t.hour,
                  t.weight * power(0.5, greatest(extract(epoch FROM clock.now - t.as_of)::float8, 0) / $3) AS weight
             FROM unnest($1::uuid[], $2::text[]) AS n(integration_id, tenant_id)
             JOIN gateway.traffic_hours t USING (integration_id, tenant_id) CROSS JOIN (SELECT gateway.now() AS now) AS clock"""


async def hours(db: Db, places: Collection[Place]) -> dict[Place, list[float]]:
    """The traffic in each hour of the day (UTC), as it weighs today. Places without any are left out."""
    found: dict[Place, list[float]] = {}
    for row in await db.fetch(HOURS, [one[0] for one in places], [one[1] for one in places], HALF_LIFE_S):
        of = found.setdefault((row["integration_id"], row["tenant_id"]), [0.0] * 24)
        of[row["hour"]] = row["weight"]
    return found
