"""Consumers over HTTP: lease, commit, hand over, reset, list."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from gateway import ids
from gateway.follower import follower
from gateway.stream import consumers
from gateway.stream.append import NewEvent, append
from tests.web.conftest import Api, problem


async def keep(api: Api, count: int) -> None:
    """`count` events of our own."""
    now = datetime.now(UTC)
    made = [
        NewEvent(
            one, one, 60, "posthouse.test.event", now, None, None, (), False, False, "application/json", None, b"{}"
        )
        for one in (ids.uuid7(now) for _ in range(count))
    ]
    async with api.gateway.regions.home.database.transaction() as db:
        await append(db, made)


async def lease(api: Api, name: str, worker: str, **more: Any) -> dict[int, dict[str, Any]]:
    answer = await api("POST", f"/v1/consumers/{name}/lease", {"worker": worker, **more})
    assert answer.status_code == 200, answer.text
    return {held["partition"]: held for held in answer.json()["partitions"]}


async def test_a_lone_worker_reads_everything_and_commits(api: Api) -> None:
    """64 partitions, one read, one commit; the lag is gone afterwards."""
    await keep(api, 5)
    held = await lease(api, "billing", "w1")
    assert sorted(held) == list(range(64))
    page = (await api("GET", "/v1/events?type=posthouse.test")).json()
    assert len(page["items"]) == 5
    done = [{"partition": p, "fence": h["fence"], "cursor": page["next_cursor"]} for p, h in held.items()]
    assert (await api("POST", "/v1/consumers/billing/commit", {"partitions": done})).status_code == 204
    assert (await api("GET", "/v1/consumers/billing")).json()["lag_events"] == 0


async def test_a_second_worker_gets_half_once_the_first_has_let_go(api: Api) -> None:
    """Nobody works on a partition that another still holds; stale fences are 409 and named."""
    first = await lease(api, "c", "w1")
    assert await lease(api, "c", "w2") == {}
    asked = [p for p, h in (await lease(api, "c", "w1")).items() if h["release"]]
    assert len(asked) == 32
    assert len(await lease(api, "c", "w1", release=asked)) == 32
    second = await lease(api, "c", "w2")
    assert sorted(second) == sorted(asked)
    stale = {"partition": asked[0], "fence": first[asked[0]]["fence"], "cursor": first[asked[0]]["cursor"]}
    refused = await api("POST", "/v1/consumers/c/commit", {"partitions": [stale]})
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("stale_fence")
    assert refused.json()["partitions"] == [asked[0]]


async def test_reset_puts_everybody_back(api: Api) -> None:
    """All leases end, the cursor is at the time asked for."""
    await keep(api, 3)
    await lease(api, "c", "w1", start="latest")
    assert (await api("GET", "/v1/consumers/c")).json()["lag_events"] == 0
    assert (await api("POST", "/v1/consumers/c/reset", {"to": "2000-01-01T00:00:00Z"})).status_code == 200
    state = (await api("GET", "/v1/consumers/c")).json()
    assert (state["lag_events"], state["leased_partitions"]) == (3, 0)


async def test_the_list_has_pages(api: Api) -> None:
    """`limit` and `cursor`, as every list. The gateway's own consumer is one like any other."""
    await consumers.lease(api.gateway.regions.home.database, follower.NAME, "w", 1)  # as if it had not come to it yet
    for name in ("a", "b", "c"):
        await lease(api, name, "w")
    first = (await api("GET", "/v1/consumers?limit=2")).json()
    assert [one["name"] for one in first["items"]] == ["a", "b"]
    rest = (await api("GET", f"/v1/consumers?limit=2&cursor={first['next_cursor']}")).json()
    assert ([one["name"] for one in rest["items"]], rest["next_cursor"]) == (["c", follower.NAME], None)


async def test_a_name_that_cannot_be_is_422(api: Api) -> None:
    """And says where."""
    answer = await api("POST", "/v1/consumers/No%20Such/lease", {"worker": "w"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["where"] == "path.name"


async def test_a_consumer_that_was_removed_lags_no_more(api: Api) -> None:
    """Else an alert about it would end with the process only."""
    await lease(api, "gone", "w")
    await keep(api, 3)
    told = []
    for method in ("GET", "DELETE"):
        assert (await api(method, "/v1/consumers/gone")).is_success
        await api.gateway.watch()
        told.append('posthouse_consumer_lag_events{consumer="gone"}' in (await api("GET", "/metrics", key=None)).text)
    assert told == [True, False]


async def test_our_own_consumers_are_nobody_elses(api: Api) -> None:
    """The follower of revocations is listed like any other; nobody leases, moves, resets or removes it."""
    name = "posthouse.lifecycle"
    async with asyncio.timeout(20):
        while name not in [one["name"] for one in (await api("GET", "/v1/consumers")).json()["items"]]:
            pass
    before = (await api("GET", f"/v1/consumers/{name}")).json()
    done = [{"partition": 0, "fence": 1, "cursor": before["cursor"]}]
    for method, path, body in (
        ("POST", "/lease", {"worker": "w"}), ("POST", "/leave", {"worker": "w"}), ("POST", "/reset", {"to": "latest"}),
        ("POST", "/commit", {"partitions": done}), ("DELETE", "", None),
    ):  # fmt: skip
        for theirs in (name, "posthouse.anything"):
            problem(await api(method, f"/v1/consumers/{theirs}{path}", body), 409, "conflict")
    after = (await api("GET", f"/v1/consumers/{name}")).json()
    assert after["workers"] == before["workers"]
    assert "posthouse.anything" not in [one["name"] for one in (await api("GET", "/v1/consumers")).json()["items"]]
    assert await lease(api, "posthouse", "w")  # a name that only looks like it
