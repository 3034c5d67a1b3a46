"""Breakers and incidents over HTTP: what is not called, and an operator's word that a set-up is mended."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.breakers.ways import Shut, way_of
from gateway.metrics import REGISTRY
from providers.errors import Misconfigured, ProviderError, RateLimited, Unreachable
from tests.web.conftest import Api, problem


@pytest.fixture
async def slack(api: Api) -> Api:
    """With an integration `chat` at Slack."""
    made = {
        "name": "chat",
        "provider": "slack",
        "client_id": "A1",
        "client_secrets": ["a secret"],
        "signing_secrets": ["a-long-enough-secret"],
    }
    answer = await api("POST", "/v1/integrations", made)
    assert answer.status_code == 201, answer.text
    return api


async def ends(api: Api, error: ProviderError | None, kind: Any = "token", times: int = 1) -> str:
    """Calls of Slack's that end so; why the last was not made."""
    integration = api.gateway.catalog.integration("chat")
    assert integration is not None
    for _ in range(times):
        try:
            async with api.gateway.breakers["default"].call(way_of(integration, kind)):
                if error is not None:
                    raise error
        except Shut as shut:
            return shut.why
        except ProviderError:
            pass
    return "made"


async def breakers(api: Api) -> list[dict[str, Any]]:
    pages = (await api("GET", "/v1/providers?limit=200")).json()["items"]
    assert all(one["breakers"] == [] for one in pages if one["name"] != "slack")
    [found] = [one["breakers"] for one in pages if one["name"] == "slack"]
    return list(found)


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"region": "default", **labels})


async def test_what_is_not_called_is_shown_by_provider(slack: Api) -> None:
    """By API, by metric and on the stream; a rate limit is no news there."""
    assert await breakers(slack) == []
    await ends(slack, Unreachable("timed_out"), times=5)
    await ends(slack, RateLimited(retry_after_s=90), kind="api")
    found = {one["why"]: one for one in await breakers(slack)}
    assert {one.pop("since") is not None and one.pop("canary_at") is not None for one in found.values()} == {True}
    assert found == {
        "failing": {
            "region": "default", "kind": "token", "host": "slack.com", "why": "failing", "code": "timed_out",
            "passed": 0, "failures": 1,
        },
        "limited": {
            "region": "default", "kind": "api", "host": "slack.com", "why": "limited", "code": "rate_limited",
            "passed": 0, "failures": 1,
        },
    }  # fmt: skip
    labels = {"provider": "slack", "kind": "token", "host": "slack.com", "why": "failing"}
    assert gauge("posthouse_breakers_open", **labels) == 1
    shut = REGISTRY.get_sample_value(
        "posthouse_calls_shut_total", {"provider": "slack", "kind": "token", "why": "failing"}
    )
    assert await ends(slack, None) == "failing"
    after = REGISTRY.get_sample_value(
        "posthouse_calls_shut_total", {"provider": "slack", "kind": "token", "why": "failing"}
    )
    assert after == (shut or 0) + 1
    said = (await slack("GET", "/v1/events?type=posthouse.provider")).json()["items"]
    assert [one["event"]["type"] for one in said] == ["posthouse.provider.breaker_opened"]
    assert said[0]["event"]["data"]["host"] == "slack.com"


async def test_an_incident_is_shown_and_tried_again_on_a_word(slack: Api) -> None:
    """The secret was mended at the provider, so nothing changes here: somebody says so."""
    assert (await slack("GET", "/v1/incidents")).json() == {"items": [], "next_cursor": None}
    problem(await slack("POST", "/v1/incidents/chat/retry"), 409, "conflict")
    await ends(slack, Misconfigured("invalid_client"))
    [found] = (await slack("GET", "/v1/incidents")).json()["items"]
    assert found.pop("since") < found.pop("retry_at")
    assert found == {
        "region": "default", "integration": "chat", "provider": "slack", "kind": "token", "code": "invalid_client",
        "failures": 1,
    }  # fmt: skip
    assert await breakers(slack) == []
    assert gauge("posthouse_integration_incident", integration="chat", kind="token") == 1
    assert await ends(slack, None) == "misconfigured"
    answer = await slack("POST", "/v1/incidents/chat/retry")
    assert (answer.status_code, answer.json()) == (200, {"integration": "chat", "regions": ["default"]})
    await slack.gateway.breakers["default"].run_once()
    assert await ends(slack, Misconfigured("invalid_client")) == "made"
    assert await ends(slack, None) == "misconfigured"
    await slack("POST", "/v1/incidents/chat/retry")
    await slack.gateway.breakers["default"].run_once()
    assert await ends(slack, None) == "made"
    assert (await slack("GET", "/v1/incidents")).json()["items"] == []
    assert gauge("posthouse_integration_incident", integration="chat", kind="token") == 0
    said = (await slack("GET", "/v1/events?type=posthouse.integration")).json()["items"]
    assert [(one["event"]["type"].rpartition(".")[2], one["event"]["data"]["integration"]) for one in said] == [
        ("incident_opened", "chat"), ("incident_closed", "chat"),
    ]  # fmt: skip


async def test_incidents_come_in_pages_and_to_whom_they_may(slack: Api) -> None:
    await ends(slack, Misconfigured("invalid_client"))
    await ends(slack, Misconfigured("invalid_auth"), kind="api")
    page = (await slack("GET", "/v1/incidents?limit=1")).json()
    more = (await slack("GET", "/v1/incidents", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert {one["kind"] for one in [*page["items"], *more["items"]]} == {"token", "api"}
    assert more["next_cursor"] is None
    problem(await slack("GET", "/v1/incidents?cursor=bm9uc2Vuc2U"), 422, "invalid")
    reader = await slack.key("reader")
    assert (await slack("GET", "/v1/incidents", key=reader)).status_code == 200
    problem(await slack("POST", "/v1/incidents/chat/retry", key=reader), 403, "forbidden")
    problem(await slack("GET", "/v1/incidents", key=await slack.key("consumer")), 403, "forbidden")
    problem(await slack("POST", "/v1/incidents/nobody/retry"), 404, "not_found")
