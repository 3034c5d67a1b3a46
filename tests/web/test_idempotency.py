"""A POST with an Idempotency-Key does its work once, whatever happens on the way."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from gateway.errors import IdempotencyInFlight, IdempotencyMismatch
from gateway.web import idempotency
from gateway.web.idempotency import Ticket
from tests.web.conftest import Api, problem

KEY = {"idempotency-key": "order-66"}
GITHUB = {"name": "gh", "provider": "github", "signing_secrets": ["a-long-enough-secret"]}


async def _connection(api: Api) -> dict[str, Any]:
    """A body for POST /v1/connections, with what it needs in place."""
    await api("PUT", "/v1/tenants/acme", {})
    await api("POST", "/v1/integrations", GITHUB)
    return {"tenant": "acme", "integration": "gh", "accounts": ["installation:1"]}


async def test_the_same_request_gets_the_same_answer(api: Api) -> None:
    """A key is made once, and shown again to whoever lost the answer."""
    first = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    again = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    assert first.status_code == again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len([k for k in (await api("GET", "/v1/keys")).json()["items"] if k["name"] == "ci"]) == 1


async def test_another_request_under_the_same_key_is_refused(api: Api) -> None:
    """Other body, or other route."""
    await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    problem(await api("POST", "/v1/keys", {"name": "cd"}, headers=KEY), 422, "idempotency_mismatch")
    problem(await api("POST", "/v1/integrations", GITHUB, headers=KEY), 422, "idempotency_mismatch")


async def test_a_key_belongs_to_its_caller(api: Api) -> None:
    """Two API keys never see each other's answers."""
    other = await api.key("admin")
    first = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    second = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY, key=other)
    assert first.json()["id"] != second.json()["id"]


async def test_many_at_once_do_the_work_once(api: Api) -> None:
    """The others are told that it is still running, or get its answer."""
    body = await _connection(api)
    answers = await asyncio.gather(*(api("POST", "/v1/connections", body, headers=KEY) for _ in range(12)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency_in_flight")
            assert answer.headers["retry-after"] == "1"
    assert len((await api("GET", "/v1/connections")).json()["items"]) == 1


async def test_a_request_that_failed_is_not_remembered(api: Api) -> None:
    """Nothing was done, so trying again does it."""
    body = {"tenant": "late", "integration": "gh"}
    await _connection(api)
    problem(await api("POST", "/v1/connections", body, headers=KEY), 404, "not_found")
    await api("PUT", "/v1/tenants/late", {})
    assert (await api("POST", "/v1/connections", body, headers=KEY)).status_code == 201


@pytest.mark.parametrize("path", ["/v1/connections", "/v1/endpoints", "/v1/integrations"])
async def test_a_process_that_died_before_it_stored_its_answer_made_the_same_thing(api: Api, path: str) -> None:
    """The next attempt finds what the lost one made: one row, one event, one secret."""
    connection = await _connection(api)
    body = {
        "/v1/connections": {**connection, "external_id": "e-1"},
        "/v1/endpoints": {"integration": "gh", "generate_secret": True},
        "/v1/integrations": {**GITHUB, "name": "gh2"},
    }[path]
    first = await api("POST", path, body, headers=KEY)
    assert first.status_code == 201, first.text
    # As a SIGKILL between the two commits leaves it: work done, lock held, no answer. Then the lock runs out.
    lost = "UPDATE control.idempotency_keys SET status = NULL, sealed_answer = NULL"
    await api.gateway.control.execute(lost)
    problem(await api("POST", path, body, headers=KEY), 409, "idempotency_in_flight")
    await api.gateway.control.execute("UPDATE control.idempotency_keys SET locked_until = '-infinity'")
    again = await api("POST", path, body, headers=KEY)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in again.headers
    said = await api.gateway.control.fetchval("SELECT count(*) FROM gateway.events")
    assert said == (1 if path == "/v1/connections" else 0)


async def test_stored_answers_are_sealed(api: Api) -> None:
    """An answer may show a key: the table never does."""
    made = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    rows = await api.gateway.control.fetch(
        "SELECT to_jsonb(k)::text || encode(sealed_answer, 'escape') AS t FROM control.idempotency_keys k"
    )
    assert rows
    assert all(made.json()["key"] not in row["t"] and "order-66" not in row["t"] for row in rows)


async def test_after_a_day_a_key_is_free_again(api: Api) -> None:
    """By the database's clock; what has ended is removed by later requests."""
    first = await api("POST", "/v1/keys", {"name": "ci"}, headers=KEY)
    await api.gateway.control.execute("UPDATE control.idempotency_keys SET expires_at = clock_timestamp()")
    second = await api("POST", "/v1/keys", {"name": "cd"}, headers=KEY)
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    await api.gateway.control.execute("UPDATE control.idempotency_keys SET expires_at = clock_timestamp()")
    await api("POST", "/v1/keys", {"name": "ci"}, headers={"idempotency-key": "another"})
    assert await api.gateway.control.fetchval("SELECT count(*) FROM control.idempotency_keys") == 1


async def test_odd_keys_are_refused(api: Api) -> None:
    """1 to 255 visible ASCII characters."""
    for key in ("", "a b", "x" * 256, "é"):
        problem(
            await api("POST", "/v1/keys", {"name": "ci"}, headers={"idempotency-key": key.encode()}), 422, "invalid"
        )


async def test_a_slow_first_attempt_does_not_overwrite_the_answer_of_who_took_over(api: Api) -> None:
    """The lock's end is the fence: whoever holds an older one stores nothing."""
    db, ring, caller = api.gateway.control, api.gateway.control_keyring, UUID(int=7)
    request = idempotency.request_hash(ring, "POST", "/x", b"", b"{}")
    slow = await idempotency.begin(db, ring, caller, "k", request)
    with pytest.raises(IdempotencyInFlight):
        await idempotency.begin(db, ring, caller, "k", request)
    await db.execute("UPDATE control.idempotency_keys SET locked_until = clock_timestamp()")
    quick = await idempotency.begin(db, ring, caller, "k", request)
    assert (quick.begun_at, quick.new_id(), quick.new_id()) == (slow.begun_at, slow.new_id(), slow.new_id())
    await idempotency.finish(db, quick, 201, b"quick")
    await idempotency.finish(db, slow, 201, b"slow")
    await idempotency.release(db, slow)
    told: Ticket = await idempotency.begin(db, ring, caller, "k", request)
    assert told.answer is not None
    assert told.answer.body == b"quick"
    with pytest.raises(IdempotencyMismatch):
        await idempotency.begin(db, ring, caller, "k", b"another request, thirty-two byte")
