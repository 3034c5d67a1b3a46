"""Integrations and API keys by API; refused deliveries to look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from tests.web.conftest import Api, problem

SECRET = "a-long-enough-secret"
GITHUB = {"name": "gh", "provider": "github", "client_id": "Iv1", "signing_secrets": [SECRET]}


async def test_an_integration_is_made_changed_rotated_and_removed(api: Api) -> None:
    """Its secrets are taken and never shown; the process knows of each step at once."""
    made = await api("POST", "/v1/integrations", GITHUB)
    assert made.status_code == 201
    assert SECRET not in made.text
    said = made.json()
    assert said["url"] == "https://hooks.example.com/hooks/gh"
    assert (len(said["signing_secrets"]), said["declared_by"], said["trouble"]) == (1, "api", None)
    problem(await api("POST", "/v1/integrations", GITHUB), 409, "conflict")

    changed = await api("PATCH", "/v1/integrations/gh", {"unattributed": "drop"})
    assert (changed.json()["unattributed"], changed.json()["client_id"]) == ("drop", "Iv1")
    rotated = await api("POST", "/v1/integrations/gh/secrets", {"secret": "another-long-secret"})
    assert len(rotated.json()["signing_secrets"]) == 2
    known = api.gateway.catalog.integration("gh")
    assert known is not None
    assert known.trust.secrets == (b"another-long-secret", SECRET.encode())
    dropped = await api("DELETE", "/v1/integrations/gh/secrets", params={"keep": 1})
    assert len(dropped.json()["signing_secrets"]) == 1
    assert (await api("GET", "/v1/integrations/gh")).json() == dropped.json()
    assert [one["name"] for one in (await api("GET", "/v1/integrations")).json()["items"]] == ["gh"]
    assert (await api("DELETE", "/v1/integrations/gh")).status_code == 204
    problem(await api("GET", "/v1/integrations/gh"), 404, "not_found")
    assert api.gateway.catalog.integration("gh") is None


async def test_what_cannot_be_set_up_says_where_and_quotes_nothing(api: Api) -> None:
    """Unknown provider or region, a secret of the wrong form, odd settings."""
    for change, where in (
        ({"provider": "nobody"}, "body.provider"),
        ({"region": "mars"}, "body.region"),
        ({"signing_secrets": ["short"]}, "body.signing_secrets.0"),
        ({"settings": {"colour": "hunter2-hunter2"}}, "body.settings.colour"),
    ):
        answer = await api("POST", "/v1/integrations", {**GITHUB, **change})
        assert [error["where"] for error in problem(answer, 422, "invalid")["errors"]] == [where], answer.text
        assert "short" not in answer.text.replace("shorter", "")
        assert "hunter2" not in answer.text
    await api("POST", "/v1/integrations", GITHUB)
    problem(await api("POST", "/v1/integrations/gh/secrets", {"secret": "short"}), 422, "invalid")


async def test_a_key_is_shown_once_and_ends_at_once(api: Api) -> None:
    """Made, used, listed without the key, revoked."""
    made = (await api("POST", "/v1/keys", {"name": "ci", "role": "reader"})).json()
    assert (await api("GET", "/v1/connections", key=made["key"])).status_code == 200
    listed = await api("GET", "/v1/keys")
    assert made["key"] not in listed.text
    shown = (await api("GET", f"/v1/keys/{made['id']}")).json()
    assert made["key"].startswith(shown["prefix"])
    assert (await api("DELETE", f"/v1/keys/{made['id']}")).status_code == 204
    problem(await api("GET", "/v1/connections", key=made["key"]), 401, "unauthenticated")
    assert (await api("GET", f"/v1/keys/{made['id']}")).json()["revoked_at"] is not None


async def test_a_key_must_end_in_the_future_and_have_a_known_role(api: Api) -> None:
    """An end that has passed, or one without a time zone, is a mistake."""
    past = (api.gateway.clock.now() - timedelta(hours=1)).isoformat()
    for odd in (
        {"expires_at": past},
        {"expires_at": "2099-01-01T00:00:00"},
        {"expires_at": 1},
        {"role": "king"},
        {"name": ""},
    ):
        problem(await api("POST", "/v1/keys", {"name": "ci", **odd}), 422, "invalid")


def _refusal(api: Api, number: int, integration: UUID, **more: Any) -> dict[str, Any]:
    return {
        "integration": integration, "endpoint": None, "reason": "signature_mismatch", "status": 401,
        "header_names": ["host", "x-hub-signature-256"], "skew_s": None, "size": number,
        "digest": bytes(32), "at": api.gateway.clock.now() + timedelta(microseconds=number),
    } | more  # fmt: skip


async def test_refusals_are_listed_newest_first(api: Api) -> None:
    """By integration, in pages, with names of headers and no value of any."""
    await api("POST", "/v1/integrations", GITHUB)
    known = api.gateway.catalog.integration("gh")
    assert known is not None
    for number in range(5):
        api.gateway.refusals.record(**_refusal(api, number, known.id))
    odd = {
        "header_names": ["a,b", "x\0y", "é" * 500] * 40,
        "reason": "stale",
        "skew_s": -400.5,
        "endpoint": UUID(int=9),
    }
    api.gateway.refusals.record(**_refusal(api, 5, known.id, **odd))
    await api.gateway.write_refusals()
    first = (await api("GET", "/v1/refusals", params={"integration": "gh", "limit": 4})).json()
    assert [one["size"] for one in first["items"]] == [5, 4, 3, 2]
    assert first["items"][0]["skew_s"] == -400.5
    assert first["items"][0]["endpoint"] == "hook_" + "0" * 31 + "9"
    assert set(first["items"][0]["header_names"]) == {"a_b", "x_y", "_" * 100}
    assert first["items"][1]["digest"] == "sha256:" + "00" * 32
    rest = await api("GET", "/v1/refusals", params={"integration": "gh", "limit": 4, "cursor": first["next_cursor"]})
    assert [one["size"] for one in rest.json()["items"]] == [1, 0]
    assert rest.json()["next_cursor"] is None


async def test_a_flood_of_forgeries_is_bounded_in_memory_and_in_the_database(api: Api) -> None:
    """200 between two flushes, 1,000 in all, the newest of each integration."""
    one, other = UUID(int=1), UUID(int=2)
    api.gateway.refusals.record(**_refusal(api, 0, other))
    for start in range(0, 1300, 200):
        for number in range(start, start + 250):
            api.gateway.refusals.record(**_refusal(api, number, one))
        await api.gateway.write_refusals()
    database = api.gateway.regions.home.database
    counts = await database.fetch(
        "SELECT integration_id, count(*) AS n, max(size) AS newest FROM gateway.refusals GROUP BY 1"
    )
    assert {row["integration_id"]: (row["n"], row["newest"]) for row in counts} == {one: (1000, 1449), other: (1, 0)}


async def test_notes_wait_while_the_database_is_away(api: Api) -> None:
    """They are written by the next flush that can."""
    from gateway.database import Database
    from gateway.errors import Unavailable

    api.gateway.refusals.record(**_refusal(api, 1, UUID(int=1)))
    nowhere = Database("postgresql://127.0.0.1:1/none")
    try:
        await api.gateway.refusals.flush(nowhere)
    except (Unavailable, AttributeError):
        pass
    assert await api.gateway.refusals.flush(api.gateway.regions.home.database) == 1
