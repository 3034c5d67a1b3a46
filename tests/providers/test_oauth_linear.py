"""Connecting Linear organizations: who acts, whose token it is, and revoking."""

from __future__ import annotations

from typing import Any

import pytest

from providers import linear
from providers.errors import GrantEnded, Misconfigured, OddAnswer, RateLimited, Unreachable
from providers.oauth import TokenSet
from tests.providers.oauth_cases import CASES
from tests.providers.script import Answer, Script, answer, fields_of

CASE, APP = CASES["linear"], CASES["linear/app"]
API = ("POST", "https://api.linear.app/graphql")
TOKEN = ("POST", "https://api.linear.app/oauth/token")
REVOKE = ("POST", "https://api.linear.app/oauth/revoke")
TOKENS = TokenSet(access_token="at-1", refresh_token="rt-1")
VIEWER = answer({"data": {"viewer": {"id": "u-1"}, "organization": {"id": "o-1"}}})
REJECTED = answer({"errors": [{"extensions": {"code": "AUTHENTICATION_ERROR"}}]}, 401)


def scripted(answers: dict[tuple[str, str], Answer]) -> Script:
    return Script(CASE.facts, CASE.app(), answers)


def test_scopes_are_asked_for_with_commas_in_somebodys_name() -> None:
    sent = linear.authorize(CASE.asked(), CASE.app())
    assert sent["scope"] == "read,write"
    assert not {"actor", "prompt"} & set(sent)
    sent = linear.authorize(APP.asked(again=True), APP.app())
    assert (sent["actor"], sent["prompt"]) == ("app", "consent")


async def test_the_organization_is_the_account() -> None:
    """And who consented is one of its keys: a webhook may be about that person alone."""
    http = scripted({API: [VIEWER, answer({"data": {"viewer": {"id": "u-1"}, "organization": None}}), REJECTED]})
    found = await linear.identify(http, CASE.app(), {"reader": TOKENS})
    assert (found.subject, found.accounts) == ("organization:o-1", ("organization:o-1", "user:o-1/u-1"))
    assert http.sent[0].headers["authorization"] == "Bearer at-1"
    with pytest.raises(OddAnswer):
        await linear.identify(http, CASE.app(), {"reader": TOKENS})
    with pytest.raises(GrantEnded):
        await linear.identify(http, CASE.app(), {"reader": TOKENS})


async def test_a_limit_that_comes_as_400_is_a_limit() -> None:
    limited = answer({"errors": [{"message": "Rate limit exceeded", "extensions": {"code": "RATELIMITED"}}]}, 400)
    with pytest.raises(RateLimited):
        await linear.probe(scripted({API: limited}), CASE.app(), TOKENS)
    assert await linear.probe(scripted({API: VIEWER}), CASE.app(), TOKENS) is None


async def test_revoking_ends_both_tokens() -> None:
    http = scripted({REVOKE: [answer({}), answer({})]})
    await linear.revoke(http, CASE.app(), TOKENS)
    assert [(fields_of(one)["token"], fields_of(one)["token_type_hint"]) for one in http.sent] == [
        ("rt-1", "refresh_token"),
        ("at-1", "access_token"),
    ]


async def test_400_means_revoked_only_where_the_token_is_dead() -> None:
    """Else it is tried again; and a refresh token that is still good brings one that can be revoked."""
    unable: Any = answer({}, 400)
    dead = answer({"error": "invalid_grant"}, 400)
    await linear.revoke(scripted({REVOKE: unable, API: REJECTED, TOKEN: dead}), CASE.app(), TOKENS)
    fresh = answer({"access_token": "at-2", "refresh_token": "rt-2"})
    http = scripted({REVOKE: [unable, answer({})], API: REJECTED, TOKEN: fresh})
    await linear.revoke(http, CASE.app(), TOKENS)
    assert fields_of(http.sent[-1])["token"] == "at-2"
    with pytest.raises(OddAnswer):
        await linear.revoke(scripted({REVOKE: unable, API: VIEWER}), CASE.app(), TOKENS)
    with pytest.raises(Unreachable):
        await linear.revoke(scripted({REVOKE: unable, API: answer({}, 502)}), CASE.app(), TOKENS)
    with pytest.raises(Misconfigured):
        await linear.revoke(scripted({REVOKE: answer({"error": "invalid_client"}, 401)}), CASE.app(), TOKENS)
    with pytest.raises(OddAnswer):
        await linear.revoke(scripted({REVOKE: answer(b"<html>", 404)}), CASE.app(), TOKENS)
