"""Deliveries that were set aside, over HTTP: listed, tried again one by one or all, by operators only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from gateway import ids
from gateway.stream.append import NewEvent, append
from providers.registry import all_providers
from providers.signals import Said, Signal
from tests.web.conftest import Api, problem
from tests.web.test_consumers import keep


async def aside(api: Api, count: int) -> list[UUID]:
    """Events that the follower will never find on the log, so that they stay as they are asked for."""
    made = [ids.uuid7(api.gateway.clock.now()) for _ in range(count)]
    for number, id in enumerate(made):
        await api.gateway.regions.home.database.execute(
            """INSERT INTO gateway.set_aside (event_id, seq, integration_id, type, at, error)
               VALUES ($1, $2, NULL, 'posthouse.delivery.slack.tokens_revoked', '2026-01-31T12:00:00Z', 'not_json')""",
            id, 10**9 + number,
        )  # fmt: skip
    return sorted(made)


async def left(api: Api) -> list[Any]:
    return list((await api("GET", "/v1/set-aside")).json()["items"])


async def test_they_are_listed_in_pages(api: Api) -> None:
    """What, whose, since when, why; nothing of what it said."""
    made = [ids.show(ids.EVENT, id) for id in await aside(api, 3)]
    first = (await api("GET", "/v1/set-aside?limit=2")).json()
    assert first["items"][0] == {
        "event": made[0], "region": "default", "integration": None, "type": "posthouse.delivery.slack.tokens_revoked",
        "at": "2026-01-31T12:00:00Z", "error": "not_json", "tries": 1, "redrive": False,
    }  # fmt: skip
    rest = (await api("GET", "/v1/set-aside", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["event"] for one in first["items"] + rest["items"]] == made
    assert rest["next_cursor"] is None
    problem(await api("GET", "/v1/set-aside?cursor=bm9uc2Vuc2U"), 422, "invalid")


async def test_one_is_tried_again_or_all_are(api: Api) -> None:
    """Retention has dropped these from the log: whoever tries them finds that, and they leave the list."""
    await keep(api, 1)  # the log goes on
    one, *others = await aside(api, 3)
    answer = await api("POST", f"/v1/set-aside/{ids.show(ids.EVENT, one)}/redrive")
    assert (answer.status_code, answer.json()) == (200, {"asked": 1})
    async with asyncio.timeout(20):
        while len(found := await left(api)) == 3:
            pass
        assert [item["event"] for item in found] == [ids.show(ids.EVENT, id) for id in others]
        assert (await api("POST", "/v1/set-aside/redrive")).json() == {"asked": 2}
        while await left(api):
            pass
    assert (await api("POST", "/v1/set-aside/redrive")).json() == {"asked": 0}


async def test_they_are_operators_business(api: Api) -> None:
    """They are of every tenant; ids that name nothing there are 404."""
    [id] = await aside(api, 1)
    for role in ("reader", "consumer"):
        key = await api.key(role)
        problem(await api("GET", "/v1/set-aside", key=key), 403, "forbidden")
        problem(await api("POST", "/v1/set-aside/redrive", key=key), 403, "forbidden")
        problem(await api("POST", f"/v1/set-aside/{ids.show(ids.EVENT, id)}/redrive", key=key), 403, "forbidden")
    for odd in ("evt_" + "0" * 32, "conn_" + id.hex, "nothing"):
        problem(await api("POST", f"/v1/set-aside/{odd}/redrive"), 404, "not_found")
    assert [item["redrive"] for item in await left(api)] == [False]


def interpret(said: Said) -> Sequence[Signal]:
    """Of one delivery, something that no database keeps."""
    return [Signal(says="revoked", reason="no\0word" if said.event == "poison" else "app_uninstalled", knows="final")]


async def test_what_cannot_be_digested_still_holds_nobody_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried again and refused by the database once more, it is aside again, and what came behind it is heard."""
    monkeypatch.setitem(all_providers(), "github", replace(all_providers()["github"], interpret=interpret))
    await api("PUT", "/v1/tenants/acme", {})
    made = {"name": "gh", "provider": "github", "signing_secrets": ["a-long-enough-secret"]}
    assert (await api("POST", "/v1/integrations", made)).status_code == 201
    integration = api.gateway.catalog.integration("gh")
    assert integration is not None
    shown = (await api("POST", "/v1/connections", {"tenant": "acme", "integration": "gh"})).json()

    async def delivered(event: str) -> None:
        id, now = api.gateway.new_id(), api.gateway.clock.now()
        kept = NewEvent(
            id, id, 60, f"posthouse.delivery.github.{event}", now, integration.id,
            ids.parse(ids.CONNECTION, shown["id"]), (), False, True, "application/json", b"{}", b"{}",
        )  # fmt: skip
        async with api.gateway.regions.home.database.transaction() as tx:
            await append(tx, [kept])

    async with asyncio.timeout(20):
        await delivered("poison")
        while not (found := await left(api)):
            pass
        assert (found[0]["tries"], found[0]["error"]) == (1, "CharacterNotInRepertoireError")
        assert (await api("POST", f"/v1/set-aside/{found[0]['event']}/redrive")).json() == {"asked": 1}
        while (found := await left(api))[0]["tries"] == 1:
            pass
        assert (found[0]["tries"], found[0]["redrive"]) == (2, False)
        await delivered("installation")
        while (await api("GET", f"/v1/connections/{shown['id']}")).json()["state"] != "revoked":
            pass
