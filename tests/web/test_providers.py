"""Providers over HTTP: what each can tell, how each is, and an operator's word that one is well."""

from __future__ import annotations

from typing import Any

from gateway import ids
from providers.registry import all_providers
from tests.indigestible import unwell
from tests.tokens.making import granted
from tests.web.conftest import Api, problem


async def listed(api: Api) -> dict[str, Any]:
    return {one["name"]: one for one in (await api("GET", "/v1/providers?limit=200")).json()["items"]}


async def test_every_provider_is_listed_with_what_it_can_tell(api: Api) -> None:
    """From the registry, in pages by name."""
    found = await listed(api)
    assert sorted(found) == sorted(all_providers())
    slack = found["slack"]
    assert slack["title"] == "Slack"
    assert {"verify", "items", "interpret", "probe"} <= set(slack["abilities"])
    told = {one["event"]: one for one in slack["tells"]}
    assert told["tokens_revoked"]["says"] == ["revoked"]
    assert told["tokens_revoked"]["source"].startswith("https://docs.slack.dev/")
    assert all(one["conditions"] == [] for one in found.values())
    names: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = (await api("GET", "/v1/providers", params={"limit": 3, **more})).json()
        names += [one["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert names == sorted(found)
    problem(await api("GET", "/v1/providers?cursor=bm9uc2Vuc2U"), 422, "invalid")


async def test_how_each_is_and_its_release(api: Api) -> None:
    """Degraded with what waits for it; released by a word, said on the stream in the same commit; then there is nothing."""
    await api("PUT", "/v1/tenants/acme", {})
    made = {"name": "gh", "provider": "github", "signing_secrets": ["a-long-enough-secret"]}
    assert (await api("POST", "/v1/integrations", made)).status_code == 201
    id = ids.parse(
        ids.CONNECTION, (await api("POST", "/v1/connections", {"tenant": "acme", "integration": "gh"})).json()["id"]
    )
    assert id is not None
    region = api.gateway.regions.home
    await granted(region, id, "acme")
    await region.database.execute(
        """INSERT INTO gateway.grant_checks (connection_id, access_profile, provider, why, asked_at, due_at, waits)
           VALUES ($1, 'reader', 'gitlab', 'refused', gateway.now(), '2100-01-01Z', true)""",
        id,
    )
    await unwell(api.gateway, "gitlab")
    await unwell(api.gateway, "generic-oauth2:acme")
    [condition] = (await listed(api))["gitlab"]["conditions"]
    assert condition.pop("degraded_since") is not None
    assert condition == {
        "region": "default", "name": "gitlab", "error_class": "refused", "failures": 1, "passed": 0, "waiting": 1,
    }  # fmt: skip
    answer = await api("POST", "/v1/providers/gitlab/release")
    assert (answer.status_code, answer.json()) == (200, {"name": "gitlab", "regions": ["default"]})
    found = await listed(api)
    [condition] = found["gitlab"]["conditions"]
    assert (condition["degraded_since"], condition["waiting"]) == (None, 0)
    [own] = found["generic-oauth2"]["conditions"]
    assert (own["name"], own["error_class"]) == ("generic-oauth2:acme", "refused")
    said = [one["event"] for one in (await api("GET", "/v1/events?type=posthouse.provider")).json()["items"]]
    assert [(one["type"].rpartition(".")[2], one["data"]["provider"]) for one in said] == [
        ("degraded", "gitlab"), ("degraded", "generic-oauth2:acme"), ("recovered", "gitlab"),
    ]  # fmt: skip
    problem(await api("POST", "/v1/providers/gitlab/release"), 409, "conflict")
    assert (await api("POST", "/v1/providers/generic-oauth2:acme/release")).status_code == 200


async def test_who_may_and_what_there_is_not(api: Api) -> None:
    """A reader looks and releases nothing; a provider that there is not is 404, one that is well 409."""
    reader = await api.key("reader")
    assert (await api("GET", "/v1/providers", key=reader)).status_code == 200
    problem(await api("POST", "/v1/providers/github/release", key=reader), 403, "forbidden")
    problem(await api("GET", "/v1/providers", key=await api.key("consumer")), 403, "forbidden")
    problem(await api("POST", "/v1/providers/nobody/release"), 404, "not_found")
    problem(await api("POST", "/v1/providers/github/release"), 409, "conflict")
