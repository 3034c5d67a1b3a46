"""What runs out is told in time, once, by whichever process comes first; the database's clock says when."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway import ids
from gateway.connections import grants
from gateway.connections.expiring import BATCH, Expiring
from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.vault.tokens import Place
from tests.web.conftest import Api

DAY_S = 24 * 3600


async def held(
    api: Api, name: str, *, refresh_s: int | None = None, access_s: int | None = 3600, refresh: bool = True,
    state: State = "active", kind: str = "code", hold: bool = False, profiles: tuple[str, ...] = ("reader",),
) -> UUID:  # fmt: skip
    """A connection called `name` whose tokens live that long; None: for ever."""
    made = await api("POST", "/v1/connections", {"tenant": "acme", "integration": "toy", "external_id": name})
    id = ids.parse(ids.CONNECTION, made.json()["id"])
    assert id is not None
    for profile in profiles:
        await consented(
            api,
            id,
            profile,
            1,
            refresh_s=refresh_s,
            access_s=access_s,
            refresh=refresh,
            state=state,
            kind=kind,
            hold=hold,
        )
    return id


async def consented(api: Api, id: UUID, profile: str, generation: int, *, refresh_s: int | None = None,
                    access_s: int | None = 3600, refresh: bool = True, state: State = "active", kind: str = "code",
                    hold: bool = False) -> None:  # fmt: skip
    """A consent's grant, of that generation."""
    region = api.gateway.regions.home
    place = Place(region.name, "acme", id, profile, generation, generation)
    sealed = await region.tokens.seal(place, "an access token", "another" if refresh else None)
    new = grants.NewTokens(
        sealed=sealed, token_type="Bearer", expires_in_s=access_s, refresh_expires_in_s=refresh_s if refresh else None
    )
    async with region.database.transaction() as tx:
        await grants.put(
            tx, id, profile, state=state, reason=None, generation=generation, token_version=generation, reach_hash=None,
            ledger=Ledger(("read",), ("read",)), parameters={}, kind=kind, held=hold,
        )  # fmt: skip
        await grants.put_tokens(tx, id, profile, "acme", generation, generation, new)


async def after(api: Api, days: float) -> None:
    """So many days have passed at the database; what is due then has been told."""
    await shift(api, days)
    await api.gateway.expiring(api.gateway.regions.home).run_once()


async def shift(api: Api, days: float) -> None:
    region = api.gateway.regions.home
    await region.database.execute("UPDATE gateway.clock SET shifted_by = $1", timedelta(days=days))
    await region.upkeep.ready()  # the log has a place for that day


async def told(api: Api) -> list[tuple[str, dict[str, Any]]]:
    """Connections that were told of, in order, by name."""
    page = (await api("GET", "/v1/events?type=posthouse.connection.expiring_soon&limit=500")).json()
    return [(one["event"]["data"]["external_id"], one["event"]["data"]) for one in page["items"]]


async def test_a_week_before_the_refresh_token_ends(api: Api) -> None:
    """Not sooner, once, with what is asked of the platform; the time of the event is the region's."""
    id = await held(api, "ends", refresh_s=30 * DAY_S, profiles=("reader", "writer"))
    await held(api, "for ever")
    await after(api, 22.9)
    assert await told(api) == []
    await after(api, 23.1)
    await after(api, 24)
    [(name, said)] = await told(api)
    assert (name, said["action"], said["state"], said["expires"]) == ("ends", "reconnect", "active", "refresh_token")
    found = await grants.of(api.gateway.regions.home.database, [id])
    ends = {one.access_profile: one.refresh_expires_at for one in found}
    assert {
        profile: datetime.fromisoformat(one["expires_at"]) for profile, one in said["access_profiles"].items()
    } == ends
    assert datetime.fromisoformat(said["expires_at"]) == min(end for end in ends.values() if end is not None)
    assert "token" not in str(said).replace("refresh_token", "")


async def test_what_is_told_of_and_what_is_not(api: Api) -> None:
    """A token that nothing refreshes, held ones, suspects; no other states, none that are minted anew, none that is over."""
    month = 30 * DAY_S
    await held(api, "unrefreshable", access_s=month, refresh=False)
    await held(api, "held", refresh_s=month, hold=True)
    await held(api, "suspect", refresh_s=month, state="suspect")
    await held(api, "revoked", refresh_s=month, state="revoked")
    await held(api, "suspended", refresh_s=month, state="suspended")
    await held(api, "minted", access_s=month, refresh=False, kind="client_credentials")
    await held(api, "refreshed", access_s=month)
    await held(api, "endless", access_s=None, refresh=False)
    await held(api, "over", refresh_s=20 * DAY_S)
    closed = await held(api, "closed", refresh_s=month)
    assert (await api("DELETE", f"/v1/connections/{ids.show(ids.CONNECTION, closed)}")).status_code == 204
    await after(api, 25)
    found = dict(await told(api))
    assert set(found) == {"unrefreshable", "held", "suspect"}
    assert {name: said["expires"] for name, said in found.items()} == {
        "unrefreshable": "access_token", "held": "refresh_token", "suspect": "refresh_token",
    }  # fmt: skip


async def test_a_short_life_is_told_of_in_its_second_half(api: Api) -> None:
    """One that a refresh slides on every hour is not told of at each; one that nobody refreshes is."""
    id = await held(api, "slides", refresh_s=DAY_S)
    await after(api, 0.4)
    assert await told(api) == []
    await consented(api, id, "reader", 1, refresh_s=DAY_S)
    await after(api, 0.8)
    assert await told(api) == []
    await after(api, 1.0)
    assert [name for name, _ in await told(api)] == ["slides"]


async def test_a_new_consent_and_a_later_end_are_told_anew(api: Api) -> None:
    """The same end, give or take some seconds, is not."""
    id, database = await held(api, "ends", refresh_s=30 * DAY_S), api.gateway.regions.home.database
    await after(api, 24)
    assert len(await told(api)) == 1
    moved = "UPDATE gateway.tokens SET refresh_expires_at = refresh_expires_at + $2 WHERE connection_id = $1"
    await database.execute(moved, id, timedelta(seconds=40))
    await after(api, 24)
    assert len(await told(api)) == 1
    await database.execute(moved, id, timedelta(days=3))
    await after(api, 27)
    assert len(await told(api)) == 2
    await consented(api, id, "reader", 2, refresh_s=int(1.5 * DAY_S))
    await after(api, 27.9)
    assert [said["access_profiles"]["reader"]["generation"] for _, said in await told(api)] == [1, 1, 2]


async def test_several_processes_share_it_and_none_tells_twice(api: Api) -> None:
    """More than a batch, by many at once."""
    database = api.gateway.regions.home.database
    id = await held(api, "first", refresh_s=30 * DAY_S)
    await database.execute(
        f"""WITH more AS (INSERT INTO gateway.connections (id, tenant_id, integration_id, external_id, labels, state, created_at, updated_at)
                SELECT gen_random_uuid(), tenant_id, integration_id, n::text, labels, state, created_at, updated_at
                  FROM gateway.connections, generate_series(1, {2 * BATCH}) AS n WHERE id = $1 RETURNING id),
             granted AS (INSERT INTO gateway.grants (connection_id, access_profile, state, since, generation, token_version, held, kind, requested,
                                                     granted, missing, lost, optional_missing, parameters, granted_at)
                SELECT more.id, access_profile, g.state, since, generation, token_version, held, kind, requested, granted, missing, lost,
                       optional_missing, parameters, granted_at FROM gateway.grants g, more WHERE g.connection_id = $1 RETURNING connection_id)
             INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                                         sealed_access, sealed_refresh, has_refresh, token_type, issued_at, expires_at, refresh_expires_at)
                SELECT granted.connection_id, access_profile, tenant_id, generation, token_version, data_key_version, sealed_access,
                       sealed_refresh, has_refresh, token_type, issued_at, expires_at, refresh_expires_at
                  FROM gateway.tokens t, granted WHERE t.connection_id = $1""",  # noqa: S608 - a constant
        id,
    )
    await shift(api, 25)
    several = [Expiring(database, 7, api.gateway.new_id) for _ in range(4)]
    assert sum(await asyncio.gather(*(one.run_once() for one in several))) == 2 * BATCH + 1
    found = [name for name, _ in await told(api)]
    assert len(found) == len(set(found)) == 2 * BATCH + 1


async def test_whoever_looked_before_another_told_and_locks_afterwards_tells_nothing(api: Api) -> None:
    """What is due is asked again under the lock: the snapshot that found the connection may be older."""
    database = api.gateway.regions.home.database
    id = await held(api, "ends", refresh_s=30 * DAY_S)
    await shift(api, 25)
    late = Expiring(database, 7, api.gateway.new_id)
    for due in (1, 0):
        async with database.transaction() as tx:
            await grants.lock(tx, id)
            assert await late.tell(tx, [id]) == due
    assert [name for name, _ in await told(api)] == ["ends"]
