"""Whose account Google's tokens are of, revoking them, and asking whether they work."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from google.auth import jwt as google_jwt

from providers import google, jwt
from providers.calls import Response
from providers.errors import GrantEnded, Misconfigured, OddAnswer, ProviderError, RateLimited, Unreachable
from providers.oauth import App, TokenSet
from tests.providers.oauth_cases import CASES
from tests.providers.script import Answer, Script, answer, fields_of
from tests.signers_b import GOOGLE_PUBLISHED, SIGNERS, google_claims, google_signer, google_token
from tests.signing import NOW

CASE = CASES["google"]
NEW, OLD, OTHER = (secret.decode() for secret in SIGNERS["google"].secrets)
REVOKE = ("POST", "https://oauth2.googleapis.com/revoke")
INFO = ("POST", "https://oauth2.googleapis.com/tokeninfo")
KEYS = ("GET", "https://www.googleapis.com/oauth2/v1/certs")
TOKENS = TokenSet(access_token="ya29.a0", refresh_token="1//rt")


def id_token(key: str = NEW, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """As Google makes it for our client."""
    own = {"aud": "client.id/1", "sub": "110169484474386276334", "email": "Zoe@Example.com", "nonce": "n-1", **changed}
    return google_token(key, google_claims(NOW, **own), header)


async def identified(token: str, app: App | None = None, published: Answer | None = None) -> Any:
    app = app or CASE.app(keys=GOOGLE_PUBLISHED, nonce="n-1")
    http = Script(CASE.facts, app, {} if published is None else {KEYS: published})
    tokens = {"reader": TokenSet(access_token="ya29.a0", id_token=token)}
    return await google.identify(http, app, tokens)


async def test_the_subject_is_the_verified_id_tokens() -> None:
    """And the mailbox is one of its accounts: Gmail's notifications name it."""
    found = await identified(id_token())
    assert found.subject == found.reach == "user:110169484474386276334"
    assert found.accounts == ("user:110169484474386276334", "email:zoe@example.com")
    assert (await identified(id_token(email_verified=False))).accounts == ("user:110169484474386276334",)
    assert (await identified(id_token(iss="accounts.google.com", aud=["client.id/1"]))).subject == found.subject


async def test_a_consent_without_an_id_token_is_refused() -> None:
    """`openid` is always asked for, so one must come: nothing else binds the tokens to this consent."""
    app = CASE.app(keys=GOOGLE_PUBLISHED, nonce="n-1")
    with pytest.raises(OddAnswer) as caught:
        await google.identify(Script(CASE.facts, app, {}), app, {"reader": TOKENS})
    assert caught.value.code == "no_id_token"


def test_google_auth_reads_the_same_token() -> None:
    """google-auth, by the same certificates: the claims that we read are the claims that are there."""
    now = jwt.verified(id_token(), GOOGLE_PUBLISHED)
    # google-auth has no types here
    theirs = google_jwt.decode(id_token(), certs=GOOGLE_PUBLISHED, verify=False)  # type: ignore[no-untyped-call]
    assert now == theirs


async def test_keys_that_are_not_at_hand_are_fetched() -> None:
    """Once, at the one host that they are published at."""
    app = CASE.app(nonce="n-1")
    assert (await identified(id_token(), app, answer(GOOGLE_PUBLISHED))).subject == "user:110169484474386276334"
    with pytest.raises(OddAnswer) as caught:
        await identified(id_token(), app, answer({}))
    assert caught.value.code == "id_token_unknown_key"
    with pytest.raises(Unreachable):
        await identified(id_token(), app, answer(None, 503))


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (id_token(aud="another"), "id_token_audience"),
        (id_token(aud=["client.id/1", "another"]), "id_token_audience"),
        (id_token(aud=None), "id_token_audience"),
        (id_token(iss="https://evil.example"), "id_token_issuer"),
        (id_token(iss="https://accounts.google.com/"), "id_token_issuer"),
        (id_token(nonce="another"), "id_token_nonce"),
        (id_token(nonce=None), "id_token_nonce"),
        (id_token(exp=int((NOW - timedelta(minutes=5)).timestamp())), "id_token_time"),
        (id_token(iat=int((NOW + timedelta(minutes=5)).timestamp())), "id_token_time"),
        (id_token(exp="soon"), "id_token_time"),
        (id_token(sub=None), "no_subject"),
        (id_token(sub=""), "no_subject"),
        (id_token(OTHER), "id_token_signature_mismatch"),
        (id_token(header={"alg": "none"}), "id_token_signature_mismatch"),
        (id_token(header={"alg": "HS256"}), "id_token_signature_mismatch"),
        (id_token()[:-4] + "AAAA", "id_token_signature_mismatch"),
        (id_token().rpartition(".")[0] + ".", "id_token_signature_mismatch"),
        ("no.jwt", "id_token_signature_mismatch"),
    ],
)
async def test_any_other_id_token_is_refused(token: str, code: str) -> None:
    with pytest.raises(OddAnswer) as caught:
        await identified(token)
    assert caught.value.code == code


async def test_changed_claims_under_a_true_signature_are_refused() -> None:
    head, _, signature = id_token().split(".")
    claims = base64.urlsafe_b64encode(json.dumps(google_claims(NOW, aud="client.id/1", sub="1")).encode())
    with pytest.raises(OddAnswer):
        await identified(f"{head}.{claims.rstrip(b'=').decode()}.{signature}")
    assert google_signer(NEW).key_id in GOOGLE_PUBLISHED


async def test_imported_tokens_are_asked_for_at_google() -> None:
    """They have no id token. A token that was issued to another client is not ours to hold."""
    for audience, fine in (("client.id/1", True), ("another", False)):
        said = {"aud": audience, "sub": "110", "email": "zoe@example.com", "email_verified": "true"}
        http = Script(CASE.facts, CASE.app(), {INFO: answer(said)})
        if fine:
            found = await google.identify(http, CASE.app(), {"reader": TOKENS})
            assert found.accounts == ("user:110", "email:zoe@example.com")
        else:
            with pytest.raises(OddAnswer):
                await google.identify(http, CASE.app(), {"reader": TOKENS})


async def test_revoking_ends_the_grant_by_its_refresh_token() -> None:
    http = Script(CASE.facts, CASE.app(), {REVOKE: [answer({}), answer({"error": "invalid_token"}, 400)]})
    await google.revoke(http, CASE.app(), TOKENS)
    await google.revoke(http, CASE.app(), TokenSet(access_token="ya29.a0"))  # gone already: no error
    assert [fields_of(request)["token"] for request in http.sent] == ["1//rt", "ya29.a0"]
    assert not http.sent[0].carries_client_secret


@pytest.mark.parametrize(
    ("response", "kind"),
    [(answer(b"<html>", 400), OddAnswer), (answer(None, 503), Unreachable), (answer({}, 429), RateLimited)],
)
async def test_a_revocation_that_did_not_happen_says_so(response: Response, kind: type[ProviderError]) -> None:
    http = Script(CASE.facts, CASE.app(), {REVOKE: response})
    with pytest.raises(kind):
        await google.revoke(http, CASE.app(), TOKENS)


async def test_a_probe_tells_what_tokeninfo_says() -> None:
    """The token is in no URL (the script looks)."""
    outcomes: list[tuple[Response, type[ProviderError] | None]] = [
        (answer({"aud": "client.id/1", "expires_in": "3001"}), None),
        (answer({"error": "invalid_token", "error_description": "Invalid Value"}, 400), GrantEnded),
        (answer({"error_description": "Invalid Value"}, 400), GrantEnded),
        # about our request, and so the answer to every token: none of them is dead
        (answer({"error": "invalid_request", "error_description": "access_token is required"}, 400), Misconfigured),
        (answer({"error": "something_new"}, 400), OddAnswer),
        (answer({}, 400), OddAnswer),
        (answer(b"<html>", 400), OddAnswer),
        (answer(b"<html>", 502), Unreachable),
    ]
    for response, kind in outcomes:
        http = Script(CASE.facts, CASE.app(), {INFO: response})
        if kind is None:
            await google.probe(http, CASE.app(), TOKENS)
        else:
            with pytest.raises(kind):
                await google.probe(http, CASE.app(), TOKENS)
        assert fields_of(http.sent[0]) == {"access_token": "ya29.a0"}
