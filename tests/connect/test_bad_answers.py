"""What providers answer when they should not: each has one outcome, no text of theirs is repeated, nothing is kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from providers.registry import all_providers
from tests.connect.browser import heading, query_of
from tests.connect.conftest import Town, declare
from tests.fakes.misbehaving import How, error, redirect, status

FAILED = "Sandbox did not answer as it should"
OURS = "The app is not set up correctly"


@dataclass(frozen=True)
class Bad:
    """An endpoint that goes wrong, and what comes of it."""

    endpoint: str
    how: str | How
    outcome: str
    reason: str | None
    title: str = FAILED


BAD = [
    Bad("authorization_code", "html", "provider_error", "not_json"),
    Bad("authorization_code", "empty", "provider_error", "not_json"),
    Bad("authorization_code", "server_error", "provider_error", "unreachable"),
    Bad("authorization_code", "close", "provider_error", "cut_off"),
    Bad("authorization_code", "answer_lost", "provider_error", "cut_off"),
    Bad("authorization_code", "huge", "provider_error", "too_large"),
    Bad("authorization_code", "error_in_200", "provider_error", "no_access_token"),
    Bad("authorization_code", "invalid_grant", "provider_error", "invalid_grant"),
    Bad("authorization_code", "rate_limited", "provider_error", "rate_limited"),
    Bad("authorization_code", error("hunter2 is no plain code"), "provider_error", "odd_answer"),
    Bad("authorization_code", redirect("http://127.0.0.1:9/token"), "provider_error", "odd_answer"),
    Bad("authorization_code", status(204), "provider_error", "not_json"),
    Bad("authorization_code", "odd_expires_in", "provider_error", "odd_expires_in"),
    Bad("authorization_code", "no_access_token", "provider_error", "no_access_token"),
    Bad("authorization_code", "number_for_token", "provider_error", "no_access_token"),
    Bad("me", "html", "provider_error", "not_json"),
    Bad("me", "server_error", "provider_error", "unreachable"),
    Bad("me", status(401), "provider_error", "token_rejected"),
    Bad("me", status(200, b'{"sub": null}'), "provider_error", "no_subject"),
    Bad("authorization_code", "invalid_client", "misconfigured", "invalid_client", OURS),
    Bad("authorization_code", error("invalid_scope"), "misconfigured", "invalid_scope", OURS),
]


async def test_each_bad_answer_has_its_outcome(town: Town) -> None:
    """A page that says what to do; a code in the session; no tokens; and, where it may help, another try that works."""
    for bad in BAD:
        made, mine = await town.ask(), town.browser()
        town.provider.misbehave(bad.endpoint, bad.how)
        answer = await town.consent(made, mine)
        assert (bad, heading(answer), answer.status_code) == (bad, bad.title, 502)
        assert "hunter2" not in answer.text
        shown = await town.session(made)
        state = "failed" if bad.outcome == "misconfigured" else "opened"
        assert (bad, shown["state"], shown["outcome"], shown["reason"]) == (bad, state, bad.outcome, bad.reason)
        assert await town.count("staged_tokens") == 0
        if state == "opened":
            again = await mine.press(answer)
            told = query_of(await town.decide(again.headers["location"], mine))
            assert (await town.complete(made, told["code"]))["outcome"] == "connected"


async def test_a_silent_provider_holds_no_database_connection(town: Town) -> None:
    """While twelve wait for its answer (the pool has ten), everything else goes on."""
    town.provider.misbehave("authorization_code", "hang", times=None)
    callbacks = []
    for _ in range(12):
        made, mine = await town.ask(), town.browser()
        callbacks.append((mine, await town.provider.consent(await town.press(made, mine))))
    waiting = [asyncio.create_task(mine.get(url)) for mine, url in callbacks]
    await town.provider.gate.until(12)
    assert (await town.ask())["state"] == "created"
    await town.provider.gate.open()
    answers: list[httpx.Response] = await asyncio.gather(*waiting)
    assert {heading(answer) for answer in answers} == {FAILED}


# What is odd, and yet an answer: scopes and lifetimes as they are told, or as RFC 6749 says where they are not.
ODD: dict[str, dict[str, Any]] = {
    "no_expires_in": {"expires": None, "reason": None},
    "text_expires_in": {"expires": 3600},
    "no_scope": {"granted": ("contacts.read", "messages.read", "profile")},
    "more_scopes": {"granted": ("admin", "contacts.read", "messages.read", "messages.write", "profile")},
    "no_refresh_token": {"refresh": False, "reason": "no_refresh_token"},
}


async def test_odd_answers_that_are_good_ones(town: Town) -> None:
    """The account is connected all the same; what is odd is on record."""
    for how, expected in ODD.items():
        town.provider.misbehave("authorization_code", how)
        grant = (await town.grants(await town.connect()))["reader"]
        assert (how, grant.state) == (how, "active")
        life = (
            None
            if grant.expires_at is None or grant.issued_at is None
            else (grant.expires_at - grant.issued_at).total_seconds()
        )
        if "expires" in expected:
            assert life == expected["expires"] or (
                life is not None and expected["expires"] - 60 < life <= expected["expires"]
            )
        assert grant.ledger.granted == expected.get("granted", ("contacts.read", "messages.read", "profile"))
        assert grant.has_refresh is expected.get("refresh", True)
        assert grant.reason == expected.get("reason")


async def test_fewer_scopes_than_needed(town: Town) -> None:
    """The page lists what is missing, and the platform learns it by event; no token is handed out."""
    town.provider.misbehave("authorization_code", "fewer_scopes")
    made = await town.ask()
    answer = await town.consent(made)
    assert (answer.status_code, heading(answer)) == (200, "Some permissions are missing")
    assert "messages.read" in answer.text
    assert (await town.session(made))["outcome"] == "scopes_missing"


async def test_denied(town: Town) -> None:
    """Nothing changes; the same browser may think again, and the way back tells the platform."""
    made, mine = await town.ask(), town.browser()
    answer = await town.consent(made, mine, deny=True)
    assert (answer.status_code, heading(answer)) == (200, "The account was not connected")
    assert f"session={made['id']}&amp;outcome=denied" in answer.text
    shown = await town.session(made)
    assert (shown["state"], shown["outcome"], shown["connection"]) == ("opened", "denied", None)
    assert town.provider.calls["token"] == 0
    again = await mine.press(answer)
    code = query_of(await town.decide(again.headers["location"], mine))["code"]
    assert (await town.complete(made, code))["outcome"] == "connected"


async def test_other_errors_of_the_authorization_endpoint(town: Town) -> None:
    """RFC 6749 section 4.1.2.1: some are the set-up's, some the provider's; none is repeated to the user."""
    for code, outcome, reason in (
        ("invalid_scope", "misconfigured", "invalid_scope"),
        ("temporarily_unavailable", "provider_error", "temporarily_unavailable"),
        ("An odd <text>", "provider_error", "odd_error"),
    ):
        made, mine = await town.ask(), town.browser()
        url = await town.press(made, mine)
        state = dict(httpx.URL(url).params)["state"]
        back = f"{town.gateway.settings.public_url}/oauth/callback/sandbox"
        answer = await mine.http.get(
            back, params={"state": state, "error": code, "iss": town.provider.base_url, "error_description": "hunter2"}
        )
        assert (answer.status_code, "hunter2" in answer.text, "odd" in answer.text) == (502, False, False)
        shown = await town.session(made)
        assert (shown["outcome"], shown["reason"]) == (outcome, reason)


@pytest.mark.parametrize("drop", [(), ("code",)])
async def test_somebody_else_has_to_approve_it(town: Town, drop: tuple[str, ...]) -> None:
    """GitHub's owner of an organization, say: no trouble of the provider's, and no code that came along is exchanged."""
    sandbox = all_providers()["sandbox"]
    assert sandbox.oauth is not None
    facts = replace(sandbox.oauth, awaits_approval={"setup_action": "request"})
    all_providers()["owned"] = replace(sandbox, facts=replace(sandbox.facts, name="owned"), oauth=facts)
    try:
        await declare(town, "other", provider="owned")
        made, mine = await town.ask(integration="other"), town.browser()
        callback = httpx.URL(await town.provider.consent(await town.press(made, mine)))
        for name in drop:
            callback = callback.copy_remove_param(name)
        answer = await mine.get(str(callback.copy_set_param("setup_action", "request")))
    finally:
        del all_providers()["owned"]
    assert (answer.status_code, heading(answer)) == (200, "Somebody has to approve it first")
    shown = await town.session(made)
    assert (shown["state"], shown["outcome"], shown["connection"]) == ("opened", "awaits_approval", None)
    assert town.provider.calls["token"] == 0


async def test_a_callback_without_code_or_error(town: Town) -> None:
    """Is no success."""
    made, mine = await town.ask(), town.browser()
    state = dict(httpx.URL(await town.press(made, mine)).params)["state"]
    back = f"{town.gateway.settings.public_url}/oauth/callback/sandbox"
    answer = await mine.http.get(back, params={"state": state, "iss": town.provider.base_url})
    assert heading(answer) == FAILED
    assert (await town.session(made))["reason"] == "no_code"
