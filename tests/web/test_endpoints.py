"""Hook endpoints: a URL, a secret shown once, rotation without a gap, an end that is final."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import pytest

from gateway import ids
from gateway.database import Database
from gateway.endpoints.cache import EndpointCache
from gateway.endpoints.store import OPENABLE, Vault, create
from gateway.errors import Conflict, Unavailable
from gateway.vault.keyring import SealBroken
from tests.clock import FakeClock
from tests.flows import raw
from tests.flows.house import opened
from tests.signers import SIGNERS
from tests.web.conftest import Api, problem
from tests.wire import Wire

GITHUB_SECRET = "a-long-enough-secret"
GITHUB = {"name": "gh", "provider": "github", "signing_secrets": [GITHUB_SECRET]}
HOOKS = {"name": "std", "provider": "standard-webhooks"}


@pytest.fixture
async def ready(api: Api) -> Api:
    """Two integrations: one holds a secret, one does not."""
    for body in (GITHUB, HOOKS):
        answer = await api("POST", "/v1/integrations", body)
        assert answer.status_code == 201, answer.text
    return api


async def _make(api: Api, **body: Any) -> Any:
    answer = await api("POST", "/v1/endpoints", body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def _uuid(shown: str) -> UUID:
    value = ids.parse(ids.ENDPOINT, shown)
    assert value is not None
    return value


async def test_an_endpoint_without_a_secret_trusts_the_integrations(ready: Api) -> None:
    """The URL is built from the configured base, never from a header."""
    made = await _make(ready, integration="gh")
    assert made["url"] == f"https://hooks.example.com/hooks/gh/{made['id']}"
    assert (made["secret"], made["secret_count"], made["state"]) == (None, 0, "live")


async def test_a_secret_is_made_where_nothing_else_verifies_and_shown_once(ready: Api) -> None:
    """In the form that the provider takes; only sealed bytes are stored."""
    made = await _make(ready, integration="std")
    assert made["secret"].startswith("whsec_")
    assert (await _make(ready, integration="gh", generate_secret=True))["secret"]
    shown = (await ready("GET", f"/v1/endpoints/{made['id']}")).json()
    assert "secret" not in shown
    assert shown["secret_count"] == 1
    region = ready.gateway.regions.home
    found = await ready.gateway.endpoints.get(region, _uuid(made["id"]))
    assert found is not None
    assert found.secrets == (made["secret"].encode(),)
    assert made["secret"] not in repr(found)
    sealed = await region.database.fetchval("SELECT sealed_secrets FROM gateway.hook_endpoints WHERE id = $1", found.id)
    assert made["secret"].encode() not in bytes(sealed[0])


async def test_secrets_are_bound_to_their_endpoint(ready: Api) -> None:
    """Moved to another row, a sealed secret does not open."""
    one, two = await _make(ready, integration="std"), await _make(ready, integration="std")
    region = ready.gateway.regions.home
    move = """UPDATE gateway.hook_endpoints SET sealed_secrets =
                (SELECT sealed_secrets FROM gateway.hook_endpoints WHERE id = $1) WHERE id = $2"""
    await region.database.execute(move, _uuid(one["id"]), _uuid(two["id"]))
    row = await region.database.fetchrow(OPENABLE, _uuid(two["id"]))
    with pytest.raises(SealBroken):
        Vault(region.name, region.keyring).opened(row)


async def _break(api: Api, made: Any) -> None:
    """As when the key of its newest secret is gone."""
    flip = "UPDATE gateway.hook_endpoints SET sealed_secrets[1] = '\\x00' WHERE id = $1"
    await api.gateway.regions.home.database.execute(flip, _uuid(made["id"]))
    api.gateway.endpoints.forget("default", _uuid(made["id"]))


async def test_an_endpoint_whose_secret_does_not_open_is_shown_and_removed(ready: Api) -> None:
    """Whoever manages endpoints needs no secret opened: one broken row hides neither itself nor the others."""
    broken, well = await _make(ready, integration="std"), await _make(ready, integration="std")
    await _break(ready, broken)
    path = f"/v1/endpoints/{broken['id']}"
    listed = await ready("GET", "/v1/endpoints")
    assert [(one["id"], one["secret_count"]) for one in listed.json()["items"]] == sorted(
        [(broken["id"], 1), (well["id"], 1)]
    )
    assert (await ready("GET", path)).json()["secret_count"] == 1
    assert (await ready("PATCH", path, {"state": "retired"})).json()["state"] == "retired"
    assert (await ready("DELETE", path)).status_code == 204
    problem(await ready("GET", path), 404, "not_found")


async def test_deliveries_to_a_broken_endpoint_wait_at_the_provider(ready: Api, lines: io.BytesIO) -> None:
    """503, each time, although the integration holds a secret; said once in the log; a new secret in front mends it."""
    made = await _make(ready, integration="gh", secret="the-first-secret")
    await _break(ready, made)
    region, cache, id = ready.gateway.regions.home, ready.gateway.endpoints, _uuid(made["id"])
    async with opened(ready.gateway) as house:
        body = b"{}"
        signed = SIGNERS["github"].headers(body, GITHUB_SECRET.encode(), ready.gateway.clock.now(),
                                           delivery_id="1", url="")  # fmt: skip
        for _ in range(3):  # asked anew, remembered, asked anew
            answer = await house.ask(raw.request(f"/hooks/gh/{made['id']}", signed, body))
            assert (answer.status, answer.header("retry-after")) == (503, "60")
            cache._known[(region.name, id)] = (float("-inf"), cache._known[(region.name, id)][1])
        assert await house.kept() == []
    said = [line for line in lines.getvalue().splitlines() if b"endpoint.unusable" in line]
    assert len(said) == 1
    assert made["id"].encode() in said[0]
    path = f"/v1/endpoints/{made['id']}/secrets"
    assert (await ready("POST", path, {"secret": "the-second-secret"})).json()["secret_count"] == 2
    with pytest.raises(Unavailable):
        await cache.get(region, id)
    assert (await ready("DELETE", path, params={"keep": 1})).json()["secret_count"] == 1
    found = await cache.get(region, id)
    assert found is not None
    assert found.secrets == (b"the-second-secret",)


async def test_endpoints_end_with_their_integration(ready: Api) -> None:
    """Retired, their secrets forgotten; those of others, and the connections, stay as they are."""
    await ready("PUT", "/v1/tenants/acme", {})
    connection = (await ready("POST", "/v1/connections", {"tenant": "acme", "integration": "std"})).json()["id"]
    live = await _make(ready, integration="std", connection=connection)
    awaited = await _make(ready, integration="std", state="confirming")
    other = await _make(ready, integration="gh", secret="the-first-secret")
    assert (await ready("DELETE", "/v1/integrations/std")).status_code == 204
    for made in (live, awaited):
        shown = (await ready("GET", f"/v1/endpoints/{made['id']}")).json()
        assert (shown["state"], shown["secret_count"], shown["integration"]) == ("retired", 0, None)
        problem(await ready("PATCH", f"/v1/endpoints/{made['id']}", {"state": "live"}), 409, "conflict")
    shown = (await ready("GET", f"/v1/endpoints/{other['id']}")).json()
    assert (shown["state"], shown["secret_count"]) == ("live", 1)
    assert (await ready("GET", f"/v1/connections/{connection}")).json()["state"] == "active"


async def test_an_integration_whose_region_is_away_is_not_removed(ready: Api, dsn: str) -> None:
    """Else its endpoints would keep their secrets with nobody left who removes them: 503, and the next call does it."""
    made = await _make(ready, integration="std")
    region = ready.gateway.regions.home
    line = Wire(dsn)
    await line.mend()
    there, region.database = region.database, Database(line.dsn)
    await region.database.open()
    await line.cut()
    try:
        problem(await ready("DELETE", "/v1/integrations/std"), 503, "unavailable")
    finally:
        await region.database.close()
        region.database = there
    assert (await ready("GET", "/v1/integrations/std")).status_code == 200
    assert (await ready("GET", f"/v1/endpoints/{made['id']}")).json()["state"] == "live"
    assert (await ready("DELETE", "/v1/integrations/std")).status_code == 204


async def test_an_integration_that_is_not_ours_to_remove_keeps_its_endpoints(ready: Api) -> None:
    """The refusal comes before anything is retired."""
    made = await _make(ready, integration="std")
    await ready.gateway.control.execute("UPDATE control.integrations SET declared_by = 'file' WHERE name = 'std'")
    problem(await ready("DELETE", "/v1/integrations/std"), 409, "conflict")
    assert (await ready("GET", f"/v1/endpoints/{made['id']}")).json()["state"] == "live"


async def test_a_call_that_comes_again_does_not_open_what_is_broken(ready: Api) -> None:
    """A lost attempt made the endpoint, then its secret broke: a conflict that says what to do, not a fault of ours."""
    made = await _make(ready, integration="std")
    await _break(ready, made)
    region, id = ready.gateway.regions.home, _uuid(made["id"])
    with pytest.raises(Conflict, match="does not open"):
        await create(
            region.database, Vault(region.name, region.keyring), id, integration_id=UUID(int=1), connection_id=None,
            state="live", confirm_ttl_s=1, secrets=(),
        )  # fmt: skip


async def test_rotation_keeps_the_old_secret_until_it_is_dropped(ready: Api) -> None:
    """Newest first; the hot path of this process sees each step at once."""
    made = await _make(ready, integration="gh", secret="the-first-secret")
    path, region = f"/v1/endpoints/{made['id']}", ready.gateway.regions.home

    async def held() -> tuple[bytes, ...]:
        found = await ready.gateway.endpoints.get(region, _uuid(made["id"]))
        assert found is not None
        return found.secrets

    assert made["secret"] is None
    assert await held() == (b"the-first-secret",)
    generated = (await ready("POST", f"{path}/secrets", {})).json()["secret"]
    assert await held() == (generated.encode(), b"the-first-secret")
    assert (await ready("POST", f"{path}/secrets", {"secret": "the-third-secret"})).json()["secret"] is None
    assert len(await held()) == 3
    dropped = await ready("DELETE", f"{path}/secrets", params={"keep": 1})
    assert dropped.json()["secret_count"] == 1
    assert await held() == (b"the-third-secret",)
    for number in range(4):
        await ready("POST", f"{path}/secrets", {"secret": f"one-more-secret-{number}"})
    problem(await ready("POST", f"{path}/secrets", {"secret": "one-too-many-secrets"}), 409, "conflict")


async def test_a_bad_secret_is_refused_without_being_quoted(ready: Api) -> None:
    """The provider's own rule says why."""
    answer = await ready("POST", "/v1/endpoints", {"integration": "std", "secret": "not-a-whsec"})
    assert problem(answer, 422, "invalid")["errors"][0]["where"] == "body.secret"
    assert "not-a-whsec" not in answer.text


async def test_retired_is_for_good(ready: Api) -> None:
    """confirming -> live -> retired, and no way back."""
    made = await _make(ready, integration="gh", state="confirming")
    assert made["confirm_until"] is not None
    path = f"/v1/endpoints/{made['id']}"
    assert (await ready("PATCH", path, {"state": "live"})).json()["confirm_until"] is None
    for _ in range(2):
        assert (await ready("PATCH", path, {"state": "retired"})).json()["state"] == "retired"
    problem(await ready("PATCH", path, {"state": "live"}), 409, "conflict")
    assert (await ready("DELETE", path)).status_code == 204
    problem(await ready("GET", path), 404, "not_found")


async def test_a_confirmation_that_nobody_made_runs_out(ready: Api) -> None:
    """By the region's clock; then it counts as retired everywhere."""
    made = await _make(ready, integration="gh", state="confirming", confirm_ttl_s=60)
    region = ready.gateway.regions.home
    await region.database.execute("UPDATE gateway.clock SET shifted_by = '61 seconds'")
    found = await ready.gateway.endpoints.get(region, _uuid(made["id"]))
    assert found is not None
    assert found.state == "retired"
    problem(await ready("PATCH", f"/v1/endpoints/{made['id']}", {"state": "live"}), 409, "conflict")


async def test_a_connection_must_be_of_the_same_integration(ready: Api) -> None:
    """An endpoint speaks for its connection, so both are of one integration."""
    await ready("PUT", "/v1/tenants/acme", {})
    connection = (await ready("POST", "/v1/connections", {"tenant": "acme", "integration": "std"})).json()["id"]
    problem(await ready("POST", "/v1/endpoints", {"integration": "gh", "connection": connection}), 422, "invalid")
    unknown = {"integration": "gh", "connection": "conn_" + "0" * 32}
    problem(await ready("POST", "/v1/endpoints", unknown), 404, "not_found")
    made = await _make(ready, integration="std", connection=connection)
    listed = (await ready("GET", "/v1/endpoints", params={"connection": connection})).json()["items"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert (await ready("GET", "/v1/endpoints", params={"integration": "gh"})).json()["items"] == []


async def test_the_cache_forgets_after_a_second_and_never_remembers_nothing(ready: Api, clock: FakeClock) -> None:
    """Another process's change is seen within the second; an endpoint that did not exist is found when it does."""
    region = ready.gateway.regions.home
    cache = EndpointCache(clock)
    assert await cache.get(region, UUID(int=1)) is None
    made = await _make(ready, integration="gh")
    id = _uuid(made["id"])
    first = await cache.get(region, id)
    assert first is not None
    await ready("PATCH", f"/v1/endpoints/{made['id']}", {"state": "retired"})
    assert await cache.get(region, id) is first
    clock.move(1.0)
    later = await cache.get(region, id)
    assert later is not None
    assert later.state == "retired"


async def test_an_endpoint_that_waits_for_its_handshake_is_always_read_anew(ready: Api, clock: FakeClock) -> None:
    """Its state may change the next moment."""
    region, cache = ready.gateway.regions.home, EndpointCache(clock)
    made = await _make(ready, integration="gh", state="confirming")
    found = await cache.get(region, _uuid(made["id"]))
    assert found is not None
    assert found.state == "confirming"
    await ready("PATCH", f"/v1/endpoints/{made['id']}", {"state": "live"})
    found = await cache.get(region, _uuid(made["id"]))
    assert found is not None
    assert found.state == "live"


async def test_concurrent_misses_share_a_query_and_one_who_leaves_takes_nothing_away(
    ready: Api, clock: FakeClock
) -> None:
    """A burst at a cold endpoint costs one query, whoever gives up."""
    import asyncio

    region, cache = ready.gateway.regions.home, EndpointCache(clock, most=2)
    made = [_uuid((await _make(ready, integration="gh"))["id"]) for _ in range(3)]
    waiting = [asyncio.create_task(cache.get(region, made[0])) for _ in range(20)]
    await asyncio.sleep(0)
    assert len(cache._asking) == 1
    waiting[0].cancel()
    found = await asyncio.gather(*waiting[1:])
    assert len({id(one) for one in found}) == 1
    for one in made:
        await cache.get(region, one)
    assert len(cache._known) == 2
    assert not cache._asking
