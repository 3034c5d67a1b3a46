"""Pub/Sub push: what a token must prove, and what its message says."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.auth import jwt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from providers import google
from providers.contract import Delivery, Verified
from providers.errors import (
    Malformed,
    NotConfigured,
    SignatureMismatch,
    TimestampOutOfRange,
    UnknownKey,
    WrongAudience,
    WrongSender,
)
from tests.providers.properties import PROPERTY
from tests.signers_b import (
    GOOGLE_KEYS,
    GOOGLE_PUBLISHED,
    GOOGLE_SETTINGS,
    SIGNERS,
    google_claims,
    google_message,
    google_signer,
    google_token,
)
from tests.signing import NOW, signed, trusting

PUSH = SIGNERS["google"]
NEW, OLD, OTHER = (secret.decode() for secret in PUSH.secrets)
PUSHED = Verified("oidc")


def bearing(token: str) -> Delivery:
    """A push with this token."""
    return signed(PUSH, headers={"authorization": f"Bearer {token}"})


def token(header: dict[str, Any] | None = None, key: str = NEW, **claims: Any) -> str:
    """A good token, but for what is changed in its header and claims."""
    return google_token(key, google_claims(NOW, **claims), header)


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def check(delivery: Delivery, now: datetime = NOW) -> Verified:
    return google.verify(delivery, trusting(PUSH), now)


# Pub/Sub push


def test_a_token_that_google_auth_accepts_is_accepted() -> None:
    """Our reading of a token agrees with google-auth's, for both published keys."""
    real_now = datetime.now(UTC)
    for key in (NEW, OLD):
        made = google_token(key, google_claims(real_now))
        theirs = jwt.decode(made, GOOGLE_PUBLISHED, audience=GOOGLE_SETTINGS["audience"])  # type: ignore[no-untyped-call]  # google-auth has no types here
        assert theirs["email"] == GOOGLE_SETTINGS["service_account_email"]
        assert check(bearing(made), real_now) == PUSHED


def test_the_published_sample_claims_are_those_we_ask_for() -> None:
    """The claims of Google's documentation, signed by a key of ours, pass with settings that name them."""
    sample = json.loads((Path(__file__).parents[1] / "vectors" / "google.json").read_text())
    claims = sample["claims"]
    trust = replace(
        trusting(PUSH),
        settings={"audience": claims["aud"], "service_account_email": claims["email"]},
    )
    made = google_token(NEW, claims)
    issued_at = datetime.fromtimestamp(claims["iat"], UTC)
    assert google.verify(bearing(made), trust, issued_at) == PUSHED
    with pytest.raises(TimestampOutOfRange):
        google.verify(bearing(made), trust, NOW)


def test_no_clock_but_ours_decides() -> None:
    """Valid at the given time, though long over by the machine's clock, and the other way round."""
    then = datetime(2019, 2, 14, tzinfo=UTC)
    assert check(signed(PUSH, now=then), then) == PUSHED
    with pytest.raises(TimestampOutOfRange):
        check(signed(PUSH, now=datetime.now(UTC)), then)


@pytest.mark.parametrize(
    ("after_s", "good"), [(-61, False), (-60, True), (0, True), (3600, True), (3660, True), (3661, False)]
)
def test_a_token_lives_from_iat_to_exp(after_s: int, good: bool) -> None:
    """With a minute of tolerance at both ends; the skew is told."""
    if good:
        assert check(signed(PUSH), NOW + timedelta(seconds=after_s)) == PUSHED
    else:
        with pytest.raises(TimestampOutOfRange) as refused:
            check(signed(PUSH), NOW + timedelta(seconds=after_s))
        assert refused.value.skew_s == after_s


@pytest.mark.parametrize("claim", ["iat", "exp"])
@pytest.mark.parametrize("value", [None, "1795435200", True, 1795435200.5, -1, 10**400, {}, []])
def test_a_token_without_usable_times_is_refused(claim: str, value: Any) -> None:
    """A token that never ends is not one of Google's."""
    with pytest.raises(SignatureMismatch):
        check(bearing(token(**{claim: value})))


@pytest.mark.parametrize(
    "audience", [None, "", "https://hooks.example.com/hooks/int_2", [GOOGLE_SETTINGS["audience"]], 1]
)
def test_a_token_for_another_audience_is_refused(audience: Any) -> None:
    """Exactly the configured one: no list, no prefix."""
    with pytest.raises(WrongAudience):
        check(bearing(token(aud=audience)))


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "attacker@their-project.iam.gserviceaccount.com"},
        {"email": None},
        {"email": GOOGLE_SETTINGS["service_account_email"].upper()},
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"iss": "https://accounts.google.com/"},
        {"iss": "https://accounts.example.com"},
        {"iss": None},
    ],
)
def test_a_token_of_another_sender_is_refused(claims: dict[str, Any]) -> None:
    """The right audience is not enough: anybody's service account can ask Google for it."""
    with pytest.raises(WrongSender):
        check(bearing(token(**claims)))


def test_the_issuers_other_spelling_is_accepted() -> None:
    """Google uses both, with and without the scheme."""
    assert check(bearing(token(iss="accounts.google.com"))) == PUSHED


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "RS384", "RS512", "PS256", "ES256", "rs256", None, 1])
def test_no_other_algorithm_is_accepted(alg: Any) -> None:
    """Even under a signature that RS256 would accept."""
    with pytest.raises(SignatureMismatch):
        check(bearing(token({"alg": alg})))


@pytest.mark.parametrize("tail", ["", "AA"])
def test_an_unsigned_token_is_refused(tail: str) -> None:
    """`alg: none`, the oldest trick."""
    head = {"alg": "none", "kid": GOOGLE_KEYS[NEW]["kid"], "typ": "JWT"}
    with pytest.raises(SignatureMismatch):
        check(bearing(f"{encoded(head)}.{encoded(google_claims(NOW))}.{tail}"))


def test_a_token_signed_with_the_public_key_is_refused() -> None:
    """HS256 with the published certificate as its secret: everybody has that."""
    head = {"alg": "HS256", "kid": GOOGLE_KEYS[NEW]["kid"], "typ": "JWT"}
    message = f"{encoded(head)}.{encoded(google_claims(NOW))}"
    mac = hmac.digest(GOOGLE_KEYS[NEW]["certificate"].encode(), message.encode(), "sha256")
    with pytest.raises(SignatureMismatch):
        check(bearing(f"{message}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"))


def test_a_key_that_is_not_published_is_told_apart() -> None:
    """The gateway then fetches the keys once more: Google may just have changed them."""
    known = replace(trusting(PUSH), keys={GOOGLE_KEYS[OLD]["kid"]: GOOGLE_KEYS[OLD]["certificate"]})
    with pytest.raises(UnknownKey):
        google.verify(signed(PUSH), known, NOW)
    assert google.verify(signed(PUSH), trusting(PUSH), NOW) == PUSHED


def test_a_token_without_key_id_is_refused() -> None:
    """No key is tried for the sake of it."""
    head, claims = {"alg": "RS256", "typ": "JWT"}, google_claims(NOW)
    signature = google_signer(NEW).sign(f"{encoded(head)}.{encoded(claims)}".encode())
    made = f"{encoded(head)}.{encoded(claims)}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(SignatureMismatch):
        check(bearing(made))


def test_a_token_that_demands_extensions_is_refused() -> None:
    """`crit` names what a verifier must understand (RFC 7515, 4.1.11); we understand none."""
    with pytest.raises(SignatureMismatch):
        check(bearing(token({"crit": ["exp"]})))


@pytest.mark.parametrize("published", ["", "no PEM", None, {"kty": "RSA"}, b"bytes"])
def test_an_unreadable_published_key_is_an_unknown_one(published: Any) -> None:
    """Whatever the keys' URL answered, no traceback."""
    trust = replace(trusting(PUSH), keys={GOOGLE_KEYS[NEW]["kid"]: published})
    with pytest.raises(UnknownKey):
        google.verify(signed(PUSH), trust, NOW)


@pytest.mark.parametrize(
    "value",
    [
        "Basic dTpw",
        "bearer x.y.z",
        "Bearer",
        "Bearer ",
        "Bearer a.b",
        "Bearer a.b.c.d",
        "Bearer ..",
        "Bearer é.é.é",
        "Bearer W10.W10.W10",
        "Bearer e30.e30.e30",
        "Bearer bnVsbA.bnVsbA.AA",
    ],
)
def test_what_is_no_token_is_refused(value: str) -> None:
    """Clearly, not with a traceback."""
    with pytest.raises(SignatureMismatch):
        check(signed(PUSH, headers={"authorization": value}))


def test_a_good_token_under_another_scheme_is_refused() -> None:
    """Google writes `Bearer`, one space, the token."""
    for value in (f"bearer {token()}", f"Bearer  {token()}", f"Bearer {token()} ", f"Token {token()}", token()):
        with pytest.raises(SignatureMismatch):
            check(signed(PUSH, headers={"authorization": value}))


def test_there_is_one_spelling_of_a_signature() -> None:
    """Padding, the other alphabet, stray characters: a lenient decoder takes them all, ours none."""
    good = token()
    for bad in (good + "=", good + "==", good[:-1] + "*" + good[-1], good.replace("-", "+").replace("_", "/") + " "):
        with pytest.raises(SignatureMismatch):
            check(bearing(bad))


@PROPERTY
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_changed_byte_of_a_token_is_accepted(place: int, change: int) -> None:
    """Any character changed to any other."""
    value = bytearray(signed(PUSH).headers["authorization"].encode())
    value[place % len(value)] ^= change
    with pytest.raises((SignatureMismatch, UnknownKey)):
        check(signed(PUSH, headers={"authorization": value.decode("latin-1")}))


def test_without_both_settings_push_is_not_accepted() -> None:
    """An audience alone would let every service account in."""
    for settings in ({}, {"audience": GOOGLE_SETTINGS["audience"]}, {**GOOGLE_SETTINGS, "service_account_email": None}):
        with pytest.raises(NotConfigured):
            google.verify(signed(PUSH), replace(trusting(PUSH), settings=settings), NOW)


def test_settings_are_both_or_neither() -> None:
    """So that half a check cannot be configured."""
    google.Settings()
    google.Settings.model_validate(GOOGLE_SETTINGS)
    for bad in (
        {"audience": "https://x"},
        {"service_account_email": "a@b"},
        {**GOOGLE_SETTINGS, "audience": ""},
        {**GOOGLE_SETTINGS, "service_account_email": "nobody"},
        {**GOOGLE_SETTINGS, "more": 1},
    ):
        with pytest.raises(ValidationError):
            google.Settings.model_validate(bad)


# Items


def test_a_mailbox_notification_names_its_account() -> None:
    """The address in lower case, the message's own time, and the message id as dedupe key."""
    body = google_message("77")
    (item,) = google.items(signed(PUSH, body), PUSHED)
    assert (item.event, item.data, item.accounts) == ("gmail", body, ("email:zoe@example.com",))
    assert item.dedupe == "projects/our-project/subscriptions/gmail-push/77"
    assert item.occurred_at == datetime.fromisoformat("2026-11-23T11:59:58.123456+00:00")


def test_a_mailbox_notification_in_base64url_is_read_too() -> None:
    """Gmail's guide says base64url, Pub/Sub's reference base64."""
    data = b'{"emailAddress":"a@example.com","historyId":"1","x":"~~~???>>>"}'
    body = google_message("1").replace(
        json.loads(google_message("1"))["message"]["data"].encode(), base64.urlsafe_b64encode(data)
    )
    assert b"-" in base64.urlsafe_b64encode(data)
    (item,) = google.items(signed(PUSH, body), PUSHED)
    assert item.accounts == ("email:a@example.com",)


@pytest.mark.parametrize(
    "data", [b"\xff", b"", b"null", b"[]", b'{"emailAddress":7,"historyId":1}', b'{"emailAddress":"a@example.com"}']
)
def test_any_other_message_is_an_event_without_account(data: bytes) -> None:
    """A topic may carry what it likes."""
    (item,) = google.items(signed(PUSH, google_message("1", data)), PUSHED)
    assert (item.event, item.accounts) == ("pubsub", ())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"message":null}', b'{"message":"x"}', b'{"message":{}', b"\xff"]
)
def test_a_push_without_message_is_malformed(body: bytes) -> None:
    """Authentic or not, this is no push."""
    with pytest.raises(Malformed):
        google.items(signed(PUSH, body), PUSHED)
