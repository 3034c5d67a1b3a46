"""Security event tokens: what passes for one, whom it is about, what it says. Signed by joserfc, never by our own code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers import google, jwt, secevent, secevent_events, ssf
from providers.contract import Delivery, Item, Trust
from providers.errors import (
    Malformed,
    NotConfigured,
    Refused,
    SignatureMismatch,
    TimestampOutOfRange,
    UnknownKey,
    WrongAudience,
    WrongSender,
)
from providers.oauth import TokenSet
from providers.registry import all_providers
from providers.signals import Said, Signal
from tests.signers_b import GOOGLE_PUBLISHED, google_claims, google_token
from tests.signers_d import (
    AUDIENCE,
    CAEP,
    GOOGLE_CLIENT,
    GOOGLE_SUB,
    LONG_AGO,
    OAUTH,
    PREFIX,
    PUBLISHED,
    RISC,
    SIGNERS,
    TRANSMITTER,
    by_token,
    claims,
    google_event,
    jwks,
    person,
    sealed,
    ssf_event,
)
from tests.signing import NOW, Signer, signed, trusting

GOOGLE, SSF, GENERIC = SIGNERS["google/secevent"], SIGNERS["ssf"], SIGNERS["generic-oauth2/secevent"]
RSA_KEY, EC_KEY = GOOGLE.secrets[0], SSF.secrets[0]
THEN = datetime.fromtimestamp(LONG_AGO, UTC)
SUBJECT = {"format": "iss_sub", "iss": TRANSMITTER, "sub": "zoë-7"}


def delivered(token: bytes, signer: Signer = SSF) -> Delivery:
    """A token as `signer` would push it."""
    return replace(signed(signer), body=token)


def taken(body: bytes, signer: Signer = SSF, trust: Trust | None = None) -> list[Item]:
    """The items of a SET that says `body`."""
    provider, delivery = all_providers()[signer.provider], signed(signer, body)
    return list(provider.items(delivery, provider.verify(delivery, trust or trusting(signer), NOW)))


def said(body: bytes, event: str, signer: Signer = SSF) -> list[Signal]:
    """What an event of it says, as it lies on the log."""
    provider = all_providers()[signer.provider]
    (item,) = [item for item in taken(body, signer) if item.event == event]
    assert provider.redact is not None
    assert provider.interpret is not None
    assert item.signal == provider.facts.is_signal(event)
    kept = provider.redact(item.data)
    return list(provider.interpret(Said(event=item.event, data=kept, content_type=item.content_type, headers={})))


def refusal(token: bytes, signer: Signer, trust: Trust | None = None) -> tuple[Refused, str]:
    """Why it is refused, and the word that its sender is told."""
    provider, delivery = all_providers()[signer.provider], delivered(token, signer)
    with pytest.raises(Refused) as caught:
        provider.verify(delivery, trust or trusting(signer), NOW)
    assert provider.decline is not None
    answer = provider.decline(delivery, caught.value)
    assert answer is not None
    assert (answer.status, answer.content_type) == (400, "application/json")
    told = json.loads(answer.body)
    assert set(told) == {"err", "description"}
    return caught.value, told["err"]


def unsigned(header: Mapping[str, Any], body: bytes, signature: bytes = b"") -> bytes:
    parts = [json.dumps(header).encode(), body, signature]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def hs256(secret: str, kid: str) -> bytes:
    """Signed with a public key as if that were a secret (joserfc would not)."""
    said = unsigned({"alg": "HS256", "kid": kid}, google_event()).rpartition(b".")[0]
    signature = base64.urlsafe_b64encode(hmac.digest(secret.encode(), said, "sha256")).rstrip(b"=")
    return said + b"." + signature


GOOGLE_KID = next(iter(GOOGLE_PUBLISHED))
GOOGLES = {"iss": "https://accounts.google.com", "aud": GOOGLE_CLIENT}
ONE = {OAUTH + "tokens-revoked": {"subject": person("https://accounts.google.com", GOOGLE_SUB)}}
TWO = {**ONE, RISC + "sessions-revoked": {"subject": person("https://accounts.google.com", "another")}}


@pytest.mark.parametrize(
    ("token", "kind", "err"),
    [
        (unsigned({"alg": "none", "kid": GOOGLE_KID}, google_event()), SignatureMismatch, "authentication_failed"),
        (unsigned({"alg": "none"}, google_event(), b"x"), SignatureMismatch, "authentication_failed"),
        (hs256(GOOGLE_PUBLISHED[GOOGLE_KID], GOOGLE_KID), SignatureMismatch, "authentication_failed"),
        (sealed(google_event(), EC_KEY, kid=GOOGLE_KID), SignatureMismatch, "authentication_failed"),
        (sealed(google_event(), GOOGLE.secrets[2]), SignatureMismatch, "authentication_failed"),
        (sealed(google_event(), RSA_KEY, kid="made-up"), UnknownKey, "invalid_key"),
        (sealed(claims(ONE, iss="https://accounts.google.com", aud="another.client"), RSA_KEY), WrongAudience, "invalid_audience"),
        (sealed(claims(ONE, iss="https://accounts.google.com", aud=[]), RSA_KEY), WrongAudience, "invalid_audience"),
        (sealed(claims(ONE, iss="https://accounts.google.com"), RSA_KEY), WrongAudience, "invalid_audience"),
        (sealed(claims(ONE, iss="https://accounts.google.com//", aud=GOOGLE_CLIENT), RSA_KEY), WrongSender, "invalid_issuer"),
        (sealed(claims(ONE, iss="https://accounts.example.com", aud=GOOGLE_CLIENT), RSA_KEY), WrongSender, "invalid_issuer"),
        (sealed(claims(ONE, aud=GOOGLE_CLIENT), RSA_KEY), WrongSender, "invalid_issuer"),
        (google_token(RSA_KEY.decode(), google_claims(NOW, aud=GOOGLE_CLIENT)).encode(), Malformed, "invalid_request"),
        (sealed(claims({}, **GOOGLES), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims({"a": 1}, **GOOGLES), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims({f"https://e/{n}": {} for n in range(21)}, **GOOGLES), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims(ONE, **GOOGLES, jti=None), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims(ONE, **GOOGLES, jti={}), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims(ONE, **GOOGLES, iat=None), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims(ONE, **GOOGLES, iat="1508184845"), RSA_KEY), Malformed, "invalid_request"),
        (sealed(claims(ONE, **GOOGLES, iat=int(NOW.timestamp()) + 61), RSA_KEY), TimestampOutOfRange, "invalid_request"),
        (sealed(claims(TWO, **GOOGLES), RSA_KEY), Malformed, "invalid_request"),
        (sealed(b"not JSON", RSA_KEY), Malformed, "invalid_request"),
        (sealed(google_event(), RSA_KEY) + b"\n", SignatureMismatch, "authentication_failed"),
        (b"", Malformed, "invalid_request"),
        (b"e30.e30", Malformed, "invalid_request"),
        ("é.é.é".encode(), Malformed, "invalid_request"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_googles_is_refused_in_the_words_of_the_rfc(
    token: bytes, kind: type[Refused], err: str
) -> None:
    """Forged, made for others, by others, an id token by the same keys, or about several people at once."""
    refused, told = refusal(token, GOOGLE)
    assert (type(refused), told) == (kind, err)


def test_the_edges_that_are_accepted() -> None:
    """One slash more or less at the issuer's end, any of several audiences, an end that is long past, a clock 60 s ahead."""
    for issuer in ("https://accounts.google.com", "https://accounts.google.com/"):
        assert taken(claims(ONE, iss=issuer, aud=["x", GOOGLE_CLIENT]), GOOGLE)
    assert taken(claims(ONE, **GOOGLES, exp=LONG_AGO + 1), GOOGLE)
    assert taken(claims(ONE, **GOOGLES, iat=int(NOW.timestamp()) + 60), GOOGLE)
    slashed = replace(trusting(GOOGLE), settings={"security_event_issuer": "https://accounts.google.com/"})
    assert taken(claims(ONE, **GOOGLES), GOOGLE, slashed)
    further = replace(trusting(GOOGLE), client_id=None, settings={"security_event_audiences": ["app-2", "app-3"]})
    assert taken(claims(ONE, iss=GOOGLES["iss"], aud="app-3"), GOOGLE, further)


def test_only_the_algorithms_that_are_configured_count() -> None:
    """An RSA key is among those published, and this stream is pinned to ES256; another one to RS256."""
    (_, err), (_, other) = refusal(sealed(ssf_event(), RSA_KEY), SSF), refusal(sealed(ssf_event(), EC_KEY), GENERIC)
    assert (err, other) == ("authentication_failed", "authentication_failed")


def test_without_an_issuer_or_audience_none_is_taken() -> None:
    """An integration that says nothing of security events trusts none."""
    for trust in (
        replace(trusting(GENERIC), settings={}),
        replace(trusting(GENERIC), settings={**GENERIC.settings, "ssf_audiences": []}, client_id=None),
    ):
        refused, err = refusal(sealed(ssf_event(), RSA_KEY), GENERIC, trust)
        assert (type(refused), err) == (NotConfigured, "access_denied")


def test_googles_schemes_do_not_stand_in_for_each_other() -> None:
    """With an Authorization header it is Pub/Sub's; at a hook endpoint only the channel's token counts."""
    delivery, trust = signed(GOOGLE), trusting(GOOGLE)
    bearer = replace(delivery, headers={**delivery.headers, "authorization": "Bearer " + delivery.body.decode()})
    with pytest.raises(Refused) as caught:
        google.verify(bearer, trust, NOW)
    assert google.decline(bearer, caught.value) is None
    with pytest.raises(Refused):
        google.verify(delivery, replace(trust, endpoint=True, secrets=(b"x",)), NOW)
    # what it calls itself does not matter, as long as it looks like a token
    plain = replace(delivery, headers={"content-type": "text/plain"})
    assert google.verify(plain, trust, NOW).scheme == secevent.SCHEME


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, b"\1" * 65, b"\xff" * 64])
def test_a_signature_that_is_no_pair_of_numbers_proves_nothing(signature: bytes) -> None:
    """Zeros among them, which a verifier once took for everybody's signature (CVE-2022-21449)."""
    for secret, signer in ((EC_KEY, SSF), (RSA_KEY, GENERIC)):
        said = sealed(ssf_event(), secret).rpartition(b".")[0]
        coded = base64.urlsafe_b64encode(signature).rstrip(b"=")
        assert refusal(said + b"." + coded, signer)[1] == "authentication_failed"


def good() -> dict[str, Any]:
    return dict(PUBLISHED["ec-key-new"])


def other(name: str, **changed: Any) -> dict[str, Any]:
    """A published key with members changed; None takes one away."""
    return {k: v for k, v in {**PUBLISHED[name], **changed}.items() if v is not None}


@pytest.mark.parametrize(
    "changed",
    [
        {"use": "enc"},
        {"alg": "RS256"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"crv": "P-384"},
        {"kty": "RSA"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"x": None},
        {"x": "AA"},
        {"x": good()["x"] + "="},
        {"x": good()["y"]},  # on no curve
        {"y": 5},
    ],
)
def test_a_published_key_that_is_not_for_this_proves_nothing(changed: dict[str, Any]) -> None:
    """It counts as one that is not there, so the keys are asked for once more."""
    trust = replace(trusting(SSF), keys={"ec-key-new": other("ec-key-new", **changed)})
    refused, err = refusal(sealed(ssf_event(), EC_KEY), SSF, trust)
    assert (type(refused), err) == (UnknownKey, "invalid_key")


@pytest.mark.parametrize(
    "changed", [{"n": None}, {"n": "AQAB"}, {"e": "AA"}, {"e": "Ag"}, {"kty": "EC"}, {"n": "A" * 4000}, {"e": "A" * 40}]
)
def test_a_weak_or_odd_rsa_key_proves_nothing(changed: dict[str, Any]) -> None:
    """Too short, even, or made to keep us busy."""
    kid = next(kid for kid, key in PUBLISHED.items() if key["kty"] == "RSA")
    token = sealed(ssf_event(), RSA_KEY).decode()
    assert jwt.verified(token, {kid: other(kid)})
    with pytest.raises(UnknownKey):
        jwt.verified(token, {kid: other(kid, **changed)})


def test_bare_keys_do() -> None:
    """`alg`, `use` and `key_ops` may be missing (RFC 7517)."""
    for secret, algorithm in ((RSA_KEY, "RS256"), (EC_KEY, "ES256")):
        ((kid, key),) = jwks(secret).items()
        bare = {name: value for name, value in key.items() if name not in ("alg", "use")}
        assert jwt.verified(sealed(b'{"a":1}', secret).decode(), {kid: bare}, (algorithm,)) == {"a": 1}  # type: ignore[arg-type]


def ssf_said(uri: str = CAEP + "session-revoked", sub_id: Any = None, **about: Any) -> bytes:
    return claims({uri: about}, iss=TRANSMITTER, aud=AUDIENCE, sub_id=sub_id)


@pytest.mark.parametrize(
    ("subject", "accounts"),
    [
        (SUBJECT, ("account:zoë-7",)),
        (person(TRANSMITTER + "/", "7"), ("account:7",)),
        (person("https://elsewhere.example.com", "7"), ()),
        ({"subject_type": "id_token_claims", "iss": TRANSMITTER, "sub": "7", "email": "Z@E.com"}, ("account:7", "email:z@e.com")),
        ({"subject_type": "id-token-claims", "email": "Z@E.com"}, ("email:z@e.com",)),
        ({"format": "email", "email": "Zoe@Example.com"}, ("email:zoe@example.com",)),
        ({"format": "opaque", "id": "11112222"}, ("account:11112222",)),
        ({"format": "account", "uri": "acct:zoe@example.com"}, ("account:acct:zoe@example.com",)),
        ({"format": "aliases", "identifiers": [SUBJECT, {"format": "email", "email": "a@b.c"}, 5]}, ("account:zoë-7", "email:a@b.c")),
        ({"format": "complex", "user": SUBJECT, "device": {"format": "opaque", "id": "d"}}, ("account:zoë-7",)),
        ({"user": SUBJECT, "tenant": {"format": "opaque", "id": "t"}}, ("account:zoë-7",)),
        ({"format": "phone_number", "phone_number": "+12065550100"}, ()),
        ({"format": "iss_sub", "iss": TRANSMITTER, "sub": "a b"}, ()),
        ({"format": "iss_sub", "iss": TRANSMITTER, "sub": {}}, ()),
        ({"format": ["iss_sub"], "sub": "7"}, ()),
        ("zoë-7", ()),
        (None, ()),
    ],
)  # fmt: skip
def test_whom_an_event_is_about(subject: Any, accounts: tuple[str, ...]) -> None:
    """Inside the event (Google, older drafts) or beside `events` (RFC 9493); of what is no subject of ours: nobody."""
    for body in (ssf_said(subject=subject), ssf_said(sub_id=subject)):
        (item,) = taken(body)
        assert item.accounts == accounts


def test_the_transmitter_speaks_of_others_only_where_the_settings_say_so() -> None:
    """Its own issuer and those that are listed."""
    trust = replace(trusting(SSF), settings={**SSF.settings, "subject_issuers": ["https://login.example.com"]})
    (item,) = taken(ssf_said(subject=person("https://login.example.com", "7")), SSF, trust)
    assert item.accounts == ("account:7",)


def test_google_knows_people_by_sub_and_by_mailbox_only_where_that_is_all() -> None:
    """A mailbox may have had another owner; the keys are as `identify` makes them."""
    both = {
        "subject_type": "id_token_claims",
        "iss": "https://accounts.google.com/",
        "sub": GOOGLE_SUB,
        "email": "Z@E.com",
    }
    (item,) = taken(google_event(subject=both), GOOGLE)
    assert (item.event, item.accounts) == ("security.tokens-revoked", (f"user:{GOOGLE_SUB}",))
    (item,) = taken(google_event(subject={**both, "sub": None}), GOOGLE)
    assert item.accounts == ("email:z@e.com",)
    (item,) = taken(google_event(subject=person("accounts.google.com", GOOGLE_SUB)), GOOGLE)
    assert item.accounts == (f"user:{GOOGLE_SUB}",)
    (item,) = taken(google_event(subject=person("https://example.com", GOOGLE_SUB)), GOOGLE)
    assert item.accounts == ()


def test_one_event_by_two_names_is_two_items_of_one_token() -> None:
    """Each with the whole SET, a dedupe key of its own, and the time when it happened."""
    events = {
        **ONE,
        RISC + "sessions-revoked": ONE[OAUTH + "tokens-revoked"],
        "https://accounts.google.com/risc/event/tokens-revoked": {},
    }
    first, second = taken(claims(events, **GOOGLES, toe=LONG_AGO - 60, jti="j"), GOOGLE)
    assert (first.event, second.event) == ("security.tokens-revoked", "security.sessions-revoked")
    assert (first.dedupe, second.dedupe) == ("set/j/security.tokens-revoked", "set/j/security.sessions-revoked")
    assert first.data == second.data
    assert first.accounts == second.accounts == (f"user:{GOOGLE_SUB}",)
    assert first.occurred_at == THEN - timedelta(seconds=60)


@pytest.mark.parametrize(
    ("uri", "event"),
    [
        ("https://accounts.google.com/risc/event/account-disabled", "security.account-disabled"),
        ("https://schemas.openid.net/secevent/ssf/event-type/verification", "security.verification"),
        ("https://evil.example.com/tokens-revoked", "security.other.tokens-revoked"),
        (RISC + "tokens-revoked", "security.other.tokens-revoked"),  # that one is OAuth's
        ("https://example.com/" + "x" * 300, ("security.other." + "x" * 100)[:100]),
        ("", "security.other.unknown"),
        ("urn:ex:Ü", "security.other.urn_ex__"),
    ],
)
def test_events_by_name(uri: str, event: str) -> None:
    """What is not known is kept, and its last word makes no signal of it."""
    (item,) = taken(ssf_event(uri=uri))
    assert item.event == event
    assert item.signal == (event in {tells.event for tells in ssf.FACTS.signals})
    (nobodys,) = taken(ssf_said(uri))
    assert (nobodys.event, nobodys.accounts, nobodys.signal) == (event, (), False)


@pytest.mark.parametrize(
    ("uri", "more", "signal"),
    [
        (RISC + "sessions-revoked", {}, ("doubtful", "sessions_revoked", "nothing", None)),
        (RISC + "account-credential-change-required", {}, ("doubtful", "account_credential_change_required", "nothing", None)),
        (RISC + "account-disabled", {"reason": "hijacking"}, ("suspended", "account_hijacked", "time", THEN)),
        (RISC + "account-disabled", {"reason": "bulk-account"}, ("suspended", "account_bulk_created", "time", THEN)),
        (RISC + "account-disabled", {"reason": ["x"]}, ("suspended", "account_disabled", "time", THEN)),
        (RISC + "account-disabled", {}, ("suspended", "account_disabled", "time", THEN)),
        (RISC + "account-enabled", {}, ("resumed", "account_enabled", "time", THEN)),
        (RISC + "account-purged", {}, ("revoked", "account_purged", "time", THEN)),
        (OAUTH + "tokens-revoked", {}, ("revoked", "tokens_revoked", "time", THEN)),
        (OAUTH + "token-revoked", {"subject": by_token()}, ("revoked", "token_revoked", "token", None)),
        (CAEP + "session-revoked", {}, ("doubtful", "session_revoked", "nothing", None)),
        (CAEP + "credential-change", {}, ("doubtful", "credential_change", "nothing", None)),
        (CAEP + "token-claims-change", {}, ("doubtful", "token_claims_change", "nothing", None)),
        (CAEP + "device-compliance-change", {}, None),
        (RISC + "verification", {"state": "s"}, None),
        ("https://evil.example.com/tokens-revoked", {}, None),
    ],
)  # fmt: skip
def test_what_events_say_of_grants(uri: str, more: dict[str, Any], signal: tuple[Any, ...] | None) -> None:
    """Read from the log, where token identifiers are blank."""
    body = claims({uri: more}, iss=TRANSMITTER, aud=AUDIENCE, sub_id=SUBJECT)
    found = said(body, secevent_events.name_of(uri))
    assert [(one.says, one.reason, one.knows, one.at) for one in found] == ([] if signal is None else [signal])
    assert all(one.accounts == () for one in found)  # those of the item


def test_a_revoked_token_that_is_none_is_set_aside() -> None:
    """It names a person, whose grants are many; and what was never a SET is no event."""
    for data in (ssf_event(uri=OAUTH + "token-revoked"), b"[]", b"{}", b'{"events":[]}'):
        with pytest.raises(Malformed):
            ssf.interpret(Said(event="security.token-revoked", data=data, content_type="application/json", headers={}))


def test_the_time_is_the_events_own_and_never_later_than_the_sets() -> None:
    """`iat` alone would let a grant look revoked that was renewed between the event and its telling."""
    for changed, at in (
        ({}, THEN),
        ({"toe": LONG_AGO - 300}, THEN - timedelta(seconds=300)),
        ({"toe": LONG_AGO + 300}, THEN),
        ({"toe": "1508184000"}, THEN),
    ):
        body = claims({OAUTH + "tokens-revoked": {}}, iss=TRANSMITTER, aud=AUDIENCE, sub_id=SUBJECT, **changed)
        assert [one.at for one in said(body, "security.tokens-revoked")] == [at]
    for stamp, at in ((LONG_AGO - 7, THEN - timedelta(seconds=7)), (LONG_AGO * 1000, THEN), (1e300, THEN)):
        body = ssf_said(OAUTH + "tokens-revoked", SUBJECT, event_timestamp=stamp)
        assert [one.at for one in said(body, "security.tokens-revoked")] == [at]


TOKEN = PREFIX + "-and-what-follows"
TWICE = hashlib.sha512(hashlib.sha512(TOKEN.encode()).digest()).digest()


@pytest.mark.parametrize(
    ("named", "how"),
    [
        (PREFIX, "prefix"),
        (base64.b64encode(TWICE).decode(), "hash_base64_sha512_sha512"),
        (base64.b64encode(TWICE).decode().rstrip("="), "hash_base64_sha512_sha512"),
        (base64.urlsafe_b64encode(TWICE).decode(), "hash_base64_sha512_sha512"),
        (base64.urlsafe_b64encode(TWICE).decode().rstrip("="), "hash_base64_sha512_sha512"),
    ],
)
def test_a_token_is_known_by_either_form_and_neither_is_stored(named: str, how: str) -> None:
    """The item's key is among the marks of the token set; in the data its place is blank, at the same length."""
    (item,) = taken(google_event(uri=OAUTH + "token-revoked", subject=by_token(named, how)), GOOGLE)
    assert len(item.accounts) == 1
    assert set(item.accounts) < set(google.token_marks(TokenSet(access_token="a", refresh_token=TOKEN)))
    kept = google.redact(item.data)
    assert len(kept) == len(item.data)
    assert named.encode() not in kept
    assert json.loads(kept)["events"][OAUTH + "token-revoked"]["subject"]["token"] == "*" * len(named)


@pytest.mark.parametrize(
    "subject",
    [
        by_token(PREFIX[:15]),
        by_token(PREFIX + "x"),
        by_token("AAAA", "hash_base64_sha512_sha512"),
        by_token("*" * 88, "hash_base64_sha512_sha512"),
        by_token(TOKEN, "plain"),
        {**by_token(), "token_type": "access_token"},
        {**by_token(), "token": 5},
    ],
)
def test_what_names_no_token_of_ours_matches_none(subject: dict[str, Any]) -> None:
    """A shorter prefix would fit more tokens than one."""
    (item,) = taken(google_event(uri=OAUTH + "token-revoked", subject=subject), GOOGLE)
    assert item.accounts == ()


def test_a_token_set_has_two_marks_or_as_many_as_it_can() -> None:
    """None without a refresh token; no prefix of one that is shorter."""
    assert len(google.token_marks(TokenSet(access_token="a", refresh_token=TOKEN))) == 2
    assert google.token_marks(TokenSet(access_token="a")) == ()
    (only,) = google.token_marks(TokenSet(access_token="a", refresh_token="short"))
    assert only.startswith("token:sha512:")


def test_a_token_wherever_it_stands_is_blanked() -> None:
    """Doubled members, nested subjects, aliases, escapes: whoever reads the log finds none of them."""
    body = (
        b'{"events":{"u":{"subject":{"token":"SECRET-1"},"subject":{"x":1}}},"sub_id":{"format":"complex","session":'
        b'{"tok\\u0065n":"SECRET-2"},"identifiers":[{"token":"SECRET\\"-3"},{"token":null},{"token":{"token":"SECRET-4"}}]},'
        b'"events":{"v":{}}}'
    )
    kept = secevent.redact(body)
    assert b"SECRET" not in kept
    assert len(kept) == len(body)
    assert json.loads(kept)["sub_id"]["identifiers"][0] == {"token": "*" * 10}
    assert secevent.redact(kept) == kept
    for other_items in (b"", b'{"message":{"token":"t"}}', b"[1]", b"not JSON"):
        assert secevent.redact(other_items) == other_items


def test_a_token_and_its_owner_in_one_set_are_not_mixed() -> None:
    """Google may tell both at once: the item that names the token is not about all that its owner granted."""
    events = {**ONE, OAUTH + "token-revoked": {"subject": by_token()}}
    of_all, of_one = taken(claims(events, **GOOGLES), GOOGLE)
    assert of_all.accounts == (f"user:{GOOGLE_SUB}",)
    assert of_one.accounts == (f"token:prefix:{PREFIX}",)
    legacy = {
        OAUTH + "token-revoked": {"subject": by_token()},
        "https://accounts.google.com/risc/event/token-revoked": ONE[OAUTH + "tokens-revoked"],
    }
    (item,) = taken(claims(legacy, **GOOGLES), GOOGLE)
    assert item.accounts == (f"token:prefix:{PREFIX}",)


def test_refusals_quote_nothing() -> None:
    """Whatever stood in the request."""
    for token in (sealed(google_event("SECRET"), RSA_KEY, kid="SECRET"), b"SECRET", sealed(b"SECRET", RSA_KEY)):
        refused, _ = refusal(token, GOOGLE)
        answer = secevent.decline(delivered(token, GOOGLE), refused)
        assert answer is not None
        assert b"SECRET" not in answer.body
        assert "SECRET" not in str(refused)
