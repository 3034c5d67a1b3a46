"""Zoom's numbers and words for what is wrong, whose token it is, and revoking."""

from __future__ import annotations

from typing import Any

import pytest

from providers import zoom
from providers.errors import (
    GrantEnded,
    Misconfigured,
    OddAnswer,
    ProviderError,
    RateLimited,
    ReuseReported,
    ScopeLacking,
    Unreachable,
)
from providers.oauth import TokenSet
from tests.providers.oauth_cases import CASES
from tests.providers.script import Answer, Script, answer, fields_of

CASE, ADMIN = CASES["zoom"], CASES["zoom/admin"]
ME = ("GET", "https://api.zoom.us/v2/users/me")
TOKEN = ("POST", "https://zoom.us/oauth/token")
REVOKE = ("POST", "https://zoom.us/oauth/revoke")
TOKENS = TokenSet(access_token="at-1", refresh_token="rt-1")
USER = {"id": "x1yCzABCDEfg23HiJKl4mN", "account_id": "AAAAAABBBB", "email": "zoe@example.com"}
WHO = "user:x1yCzABCDEfg23HiJKl4mN"


def scripted(answers: dict[tuple[str, str], Answer]) -> Script:
    return Script(CASE.facts, CASE.app(), answers)


SAID: list[tuple[dict[str, Any], int, type[ProviderError] | None]] = [
    ({"reason": "Invalid Token!", "error": "invalid_grant"}, 400, GrantEnded),
    ({"reason": "Invalid Token!", "error": "invalid_request"}, 400, GrantEnded),
    ({"reason": "Invalid Token!", "error": "invalid_request"}, 401, GrantEnded),
    ({"reason": "Redirect URI mismatch.", "error": "invalid_request"}, 400, Misconfigured),
    ({"reason": "Invalid client_id or client_secret", "error": "invalid_client"}, 401, Misconfigured),
    ({"reason": "Invalid Token!"}, 400, OddAnswer),
    ({"reason": "Invalid Token!", "error": "something_new"}, 400, OddAnswer),
    ({"reason": "Invalid Token!", "error": "invalid_request"}, 500, Unreachable),
    ({"reason": "Invalid Token!", "error": "invalid_request"}, 429, RateLimited),
    (
        {"status": False, "errorCode": 4741, "errorMessage": "The token has been revoked.", "result": None},
        400,
        GrantEnded,
    ),
    ({"errorCode": 4740}, 400, ReuseReported),
    ({"status": False, "errorCode": "4735", "errorMessage": "", "result": None}, 401, GrantEnded),
    ({"status": False, "errorCode": 4702, "errorMessage": "Invalid client_id: x", "result": None}, 400, Misconfigured),
    ({"status": False, "errorCode": 4700, "errorMessage": "", "result": None}, 400, Unreachable),
    ({"status": False, "errorCode": 4799, "errorMessage": "", "result": None}, 400, OddAnswer),
    ({"errorCode": 4700, "error": "invalid_grant"}, 400, Unreachable),  # the number says more
    ({"errorCode": 4741}, 503, Unreachable),
    ({"errorCode": [4741]}, 400, OddAnswer),
    ({"errorCode": True}, 400, OddAnswer),
    ({"access_token": "at", "scope": ""}, 200, None),
]


@pytest.mark.parametrize(("said", "status", "kind"), SAID)
def test_numbers_and_reasons(said: dict[str, Any], status: int, kind: type[ProviderError] | None) -> None:
    """Both ways in which clients have seen it; only what is listed ends a grant."""
    refused = zoom.classify(answer(said, status))
    assert type(refused) is (kind or type(None))
    assert refused is None or refused.status == status


def test_one_valid_token_a_user_and_app() -> None:
    """So a second consent ends the first one's tokens, and a revocation reaches all of them."""
    assert CASE.facts.scopes_merge
    assert (CASE.facts.revoke_reach, CASE.facts.rotation) == ("account", "strict")


async def test_a_user_or_the_account_of_an_app_that_admins_manage() -> None:
    """An account's key at a user's connection would hand it what colleagues do."""
    found = await zoom.identify(scripted({ME: answer(USER)}), CASE.app(), {"reader": TOKENS})
    assert (found.subject, found.accounts, found.reach) == (WHO, (WHO,), WHO)
    found = await zoom.identify(scripted({ME: answer(USER)}), ADMIN.app(), {"reader": TOKENS})
    assert (found.subject, found.accounts, found.reach) == ("account:AAAAAABBBB", ("account:AAAAAABBBB", WHO), WHO)
    for lacking in ({"id": "x"}, {}):
        with pytest.raises(OddAnswer):
            await zoom.identify(scripted({ME: answer(lacking)}), ADMIN.app(), {"reader": TOKENS})


PROBES: list[tuple[dict[str, Any], int, type[ProviderError]]] = [
    ({"code": 124, "message": "Invalid access token."}, 401, GrantEnded),
    ({"code": 4711, "message": "Invalid access token, does not contain scopes:[user:read:user]."}, 400, ScopeLacking),
    ({"code": 300, "message": "Validation Failed."}, 400, OddAnswer),
    ({}, 502, Unreachable),
]


@pytest.mark.parametrize(("said", "status", "kind"), PROBES)
async def test_a_token_without_the_scope_to_read_users_is_not_called_dead(
    said: dict[str, Any], status: int, kind: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as caught:
        await zoom.probe(scripted({ME: answer(said, status)}), CASE.app(), TOKENS)
    assert type(caught.value) is kind
    with pytest.raises(OddAnswer):
        await zoom.probe(scripted({ME: answer(b"<html>", 400)}), CASE.app(), TOKENS)


async def test_revoking_takes_a_token_that_is_still_good() -> None:
    """Zoom would call a dead one revoked, and the grant would go on."""
    http = scripted({ME: answer(USER), REVOKE: answer({"status": "success"})})
    await zoom.revoke(http, CASE.app(), TOKENS)
    assert fields_of(http.sent[1])["token"] == "at-1"
    assert http.sent[1].headers["authorization"].startswith("Basic ")
    fresh = answer({"access_token": "at-2", "refresh_token": "rt-2"})
    http = scripted({ME: answer({}, 401), TOKEN: fresh, REVOKE: answer({"status": "success"})})
    await zoom.revoke(http, CASE.app(), TOKENS)
    assert fields_of(http.sent[2])["token"] == "at-2"
    narrow = {"code": 4711}
    http = scripted(
        {ME: answer(narrow, 400), REVOKE: answer({"reason": "Invalid Token!", "error": "invalid_request"}, 400)}
    )
    await zoom.revoke(http, CASE.app(), TOKENS)
    await zoom.revoke(
        scripted({ME: answer({}, 401), TOKEN: answer({"error": "invalid_grant"}, 400)}), CASE.app(), TOKENS
    )
    with pytest.raises(Unreachable):
        await zoom.revoke(scripted({ME: answer({}, 503)}), CASE.app(), TOKENS)
    refused = answer({"error": "invalid_client"}, 401)
    with pytest.raises(Misconfigured):
        await zoom.revoke(scripted({ME: answer(USER), REVOKE: refused}), CASE.app(), TOKENS)
