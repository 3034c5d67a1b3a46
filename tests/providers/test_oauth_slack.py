"""Slack's two tokens: which is which, whose they are, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from providers import slack
from providers.calls import Response
from providers.errors import GrantEnded, Misconfigured, OddAnswer, ProviderError, ScopeLacking, Unreachable
from providers.oauth import Asked, Identity, TokenSet
from tests.providers.oauth_cases import CASES
from tests.providers.script import Answer, Script, answer, fields_of

CASE = CASES["slack"]
TEST = ("POST", "https://slack.com/api/auth.test")
REVOKE = ("POST", "https://slack.com/api/auth.revoke")
ACCESS = ("POST", "https://slack.com/api/oauth.v2.access")
BOT = TokenSet(access_token="xoxe.xoxb-1", refresh_token="xoxe-1-b")
USER = TokenSet(access_token="xoxe.xoxp-1")


def scripted(answers: dict[tuple[str, str], Answer]) -> Script:
    return Script(CASE.facts, CASE.app(), answers)


def test_one_exchange_brings_both_tokens_each_with_its_own_refresh_token_and_scopes() -> None:
    found = slack.token_sets(CASE.answer, CASE.asked())
    assert (found["bot"].access_token, found["bot"].refresh_token) == ("xoxe.xoxb-1", "xoxe-1-b")
    assert (found["user"].access_token, found["user"].refresh_token) == ("xoxe.xoxp-1", "xoxe-1-u")
    assert found["bot"].scopes == {"chat:write", "commands"}
    assert found["user"].scopes == {"search:read"}


def test_a_user_token_alone_and_a_bot_token_alone() -> None:
    """The first has nothing at the top; `authed_user` of the second names who installed, and holds no token."""
    user = {"ok": True, "authed_user": CASE.answer["authed_user"], "team": {"id": "T1"}}
    assert set(slack.token_sets(user, Asked(scopes={"user": ("search:read",)}))) == {"user"}
    bot = {**CASE.answer, "authed_user": {"id": "U2"}}
    assert set(slack.token_sets(bot, Asked(scopes={"bot": ("commands",)}))) == {"bot"}


@pytest.mark.parametrize(
    ("said", "profile"),
    [
        ({"access_token": "xoxe.xoxb-2", "token_type": "bot"}, "user"),  # a refresh of one, answered with the other
        ({"access_token": "xoxe.xoxp-2", "token_type": "user"}, "bot"),
        ({"access_token": "xoxa-2", "token_type": "app"}, "bot"),
        ({"access_token": "xoxb-2"}, "bot"),
        ({"authed_user": {"id": "U2"}}, "user"),
    ],
)
def test_a_token_of_the_other_kind_is_refused(said: dict[str, Any], profile: str) -> None:
    with pytest.raises(OddAnswer):
        slack.token_sets({"ok": True, **said}, Asked(scopes={profile: ()}))


WORKSPACE = {"ok": True, "team_id": "T1", "user_id": "U0", "bot_id": "B1", "is_enterprise_install": False}
PERSON = {"ok": True, "team_id": "T1", "user_id": "U2"}
ORGANIZATION = {"ok": True, "team_id": "E1", "enterprise_id": "E1", "user_id": "U0", "is_enterprise_install": True}


@pytest.mark.parametrize(
    ("said", "identity"),
    [
        ({"bot": WORKSPACE}, Identity(subject="team:T1", accounts=("team:T1",), reach="team:T1")),
        (
            {"bot": WORKSPACE, "user": PERSON},
            Identity(subject="user:T1/U2", accounts=("team:T1", "user:T1/U2"), reach="team:T1"),
        ),
        ({"user": PERSON}, Identity(subject="user:T1/U2", accounts=("team:T1", "user:T1/U2"), reach="team:T1")),
        ({"bot": ORGANIZATION}, Identity(subject="enterprise:E1", accounts=("enterprise:E1",), reach="enterprise:E1")),
    ],
)
async def test_whose_it_is(said: dict[str, dict[str, Any]], identity: Identity) -> None:
    """The keys are those of its deliveries (see test_slack_items)."""
    http = scripted({TEST: [answer(one) for one in said.values()]})
    assert await slack.identify(http, CASE.app(), dict.fromkeys(said, BOT)) == identity


async def test_tokens_of_two_workspaces_are_nobodys() -> None:
    for said in (
        [WORKSPACE, {**PERSON, "team_id": "T9"}],
        [{"ok": True}, {"ok": True}],
        [WORKSPACE, {**PERSON, "user_id": ""}],
    ):
        http = scripted({TEST: [answer(one) for one in said]})
        with pytest.raises(OddAnswer):
            await slack.identify(http, CASE.app(), {"bot": BOT, "user": USER})


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (answer(WORKSPACE), None),
        (answer({"ok": False, "error": "token_revoked"}), GrantEnded),
        (answer({"ok": False, "error": "account_inactive"}), GrantEnded),
        (answer({"ok": False, "error": "invalid_auth"}), GrantEnded),
        (answer({"ok": False, "error": "token_expired"}), GrantEnded),
        (answer({"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "commands"}), ScopeLacking),
        (answer({"ok": False, "error": "not_allowed_token_type"}), ScopeLacking),
        (answer({"ok": False, "error": "team_access_not_granted"}), ScopeLacking),
        (answer({"ok": False, "error": "something_new"}), OddAnswer),
        (answer({"ok": False, "error": "ekm_access_denied"}), Unreachable),  # paused, not revoked
        (answer({"ok": False, "error": "ratelimited"}), Unreachable),
        (answer({"ok": False}), OddAnswer),
        (answer(b"<html>"), OddAnswer),
        (answer(None, 503), Unreachable),
    ],
)
async def test_a_probe_reads_the_error_inside_the_200(response: Response, kind: type[ProviderError] | None) -> None:
    if kind is None:
        await slack.probe(scripted({TEST: response}), CASE.app(), BOT)
    else:
        with pytest.raises(kind):
            await slack.probe(scripted({TEST: response}), CASE.app(), BOT)


def test_at_the_token_endpoint_a_missing_scope_ends_nothing() -> None:
    """Nor is it a lack of ours there: nobody documents it."""
    assert type(slack.classify(answer({"ok": False, "error": "missing_scope"}))) is OddAnswer


async def test_revoking_a_token_and_one_that_is_over() -> None:
    """An access token that expired cannot revoke itself: the refresh token gets one more, for this."""
    over = answer({"ok": False, "error": "token_expired"})
    http = scripted({REVOKE: answer({"ok": True, "revoked": True})})
    await slack.revoke(http, CASE.app(), BOT)
    assert http.sent[0].headers["authorization"] == "Bearer xoxe.xoxb-1"

    fresh = answer({"ok": True, "access_token": "xoxe.xoxb-2", "token_type": "bot", "refresh_token": "xoxe-1-c"})
    http = scripted({REVOKE: [over, answer({"ok": True, "revoked": True})], ACCESS: fresh})
    await slack.revoke(http, CASE.app(), BOT)
    assert fields_of(http.sent[1])["refresh_token"] == "xoxe-1-b"
    assert http.sent[2].headers["authorization"] == "Bearer xoxe.xoxb-2"


async def test_what_is_gone_already_is_no_error_and_what_is_not_revoked_is() -> None:
    gone = answer({"ok": False, "error": "token_revoked"})
    await slack.revoke(scripted({REVOKE: gone}), CASE.app(), USER)
    dead = answer({"ok": False, "error": "invalid_refresh_token"})
    await slack.revoke(scripted({REVOKE: gone, ACCESS: dead}), CASE.app(), BOT)
    with pytest.raises(Misconfigured):
        await slack.revoke(
            scripted({REVOKE: gone, ACCESS: answer({"ok": False, "error": "bad_client_secret"})}), CASE.app(), BOT
        )
    with pytest.raises(Unreachable):
        await slack.revoke(scripted({REVOKE: answer(None, 500)}), CASE.app(), BOT)
