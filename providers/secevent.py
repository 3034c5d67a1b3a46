"""Security Event Tokens (RFC 8417) as they are pushed (RFC 8935): verified, told apart, answered.

A SET is a JWT that somebody's issuer signs to say what happened to an account. What makes it one for us:

- its signature, by a pinned algorithm and a published key of the transmitter's that the integration names,
- `iss`, the transmitter; `aud`, one of our client ids (or what the settings say),
- `events`: an id token by the same keys, for the same client, has none, and so never passes for a SET,
- `jti`, by which it is known when it comes again,
- `iat`, not ahead of us. `exp` is not looked at: what happened stays true (RFC 8417 section 2.2).

A SET speaks of one logical event, though perhaps by several names (RFC 8417 section 2.2): one whose names tell of
different people is refused, since each item goes to the tenants of its accounts with all of the SET in it.
What is kept is what the token says, decoded: the token itself would verify anywhere for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson

from providers import jwt, slicing
from providers.contract import Answer, Delivery, Facts, Item, Verified
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
from providers.jwt import RS256, Algorithm
from providers.reading import at, document, identifier, loads, media_type, text
from providers.secevent_events import TOKEN, accounts_of, happened, moment, name_of

SCHEME = "secevent"
ACCEPTED = 202  # RFC 8935 section 2.2
MEDIA_TYPES = frozenset(
    {"application/secevent+jwt", "application/jwt"}
)  # RFC 8417 section 2.3; the second by older senders
MOST_EVENTS = 20  # names of one event; RFC 8417's own examples have two

# RFC 8935 section 2.4. Its "description" is ours, by our reason, and quotes nothing of the request.
ERRORS: Mapping[type[Refused], tuple[str, str]] = {
    Malformed: ("invalid_request", "the body is no security event token that can be read"),
    TimestampOutOfRange: ("invalid_request", "iat is in the future"),
    UnknownKey: ("invalid_key", "the token names a key that its issuer has not published, or not for this algorithm"),
    SignatureMismatch: ("authentication_failed", "the signature is not by the key that the token names"),
    WrongSender: ("invalid_issuer", "iss is not the issuer that is configured here"),
    WrongAudience: ("invalid_audience", "aud is none of ours"),
    NotConfigured: ("access_denied", "no security events are taken here"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Whose security events an integration takes, and how it knows accounts."""

    issuer: str | None
    audiences: Collection[str]
    algorithms: Collection[Algorithm] = RS256
    subject: str = "account"  # the kind of account key that `sub` is of
    subject_issuers: Collection[str] = ()  # whose `sub` that is, besides the transmitter's


def carries(delivery: Delivery) -> bool:
    """Does this request say that its body is a SET? RFC 8935 section 2.1 has it named by its content type."""
    return media_type(delivery.headers.get("content-type")) in MEDIA_TYPES


def verify(delivery: Delivery, stream: Stream, keys: Mapping[str, Any], now: datetime) -> Verified:
    """Raise `Refused` unless the body is a SET of that stream. `Verified.accounts` are those that it may speak of."""
    if not stream.issuer or not stream.audiences:
        raise NotConfigured("no issuer of security events, or no audience")
    token, claims = _parsed(delivery.body)
    jwt.verified(token, keys, stream.algorithms)
    if not same_issuer(text(claims.get("iss")), stream.issuer):
        raise WrongSender("iss")
    audience = claims.get("aud")
    if not any(isinstance(one, str) and one in stream.audiences for one in _listed(audience)):
        raise WrongAudience("aud")
    issued = moment(claims.get("iat"))
    if issued is None:
        raise Malformed("iat")
    if (ahead_s := (issued - now).total_seconds()) > jwt.SKEW_S:
        raise TimestampOutOfRange("iat", skew_s=-ahead_s)
    if identifier(claims.get("jti"), 500) is None:
        raise Malformed("jti")
    return Verified(SCHEME, accounts=_accounts(claims, stream), ack_status=ACCEPTED)


def items(delivery: Delivery, verified: Verified, facts: Facts, subject: str) -> list[Item]:
    """One item for each name of the event; of its accounts those that `verify` let pass."""
    token, claims = _parsed(delivery.body)
    data, jti = jwt.payload(token), identifier(claims.get("jti"), 500)
    found: dict[str, list[str]] = {}
    for uri, said in claims["events"].items():
        keys = found.setdefault(name_of(uri), [])
        keys += [key for key in accounts_of(said, claims, subject) if key in verified.accounts]
    for keys in found.values():  # what names a token is not about all that its owner granted
        if tokens := [key for key in keys if key.startswith(TOKEN)]:
            keys[:] = tokens
    return [
        Item(
            event=name,
            data=data,
            accounts=tuple(dict.fromkeys(keys)),
            dedupe=f"set/{jti}/{name}",  # RFC 8417 section 2.2: unique at its issuer, of whom a stream has one
            occurred_at=happened(claims),
            signal=bool(keys) and facts.is_signal(name),  # of nobody it says nothing
        )
        for name, keys in found.items()
    ]


def redact(data: bytes) -> bytes:
    """Blank token identifiers, wherever a subject may have one; other items of the provider stay as they are."""
    try:
        said = loads(data)
    except Malformed:
        return data  # of no SET: what one says was read by the same parser
    if not isinstance(at(said, "events"), dict):
        return data
    return slicing.blank_everywhere(data, "token")


def decline(delivery: Delivery, refused: Refused) -> Answer | None:
    """RFC 8935 section 2.3: 400, and one of its words; None for what no SET could be refused for (a GET)."""
    for kind, (err, description) in ERRORS.items():
        if isinstance(refused, kind):
            return _declined(err, description)
    return None


def same_issuer(said: str, due: str) -> bool:
    """Are these one issuer, give or take one slash at the end?

    Google's documentation shows its own both with and without it. More than one slash is somebody else.
    """
    return bool(said) and (said == due or said == due + "/" or said + "/" == due)


@lru_cache(maxsize=16)  # they are few, and always the same
def _declined(err: str, description: str) -> Answer:
    body = orjson.dumps({"err": err, "description": description})
    return Answer(400, body, "application/json", headers=(("content-language", "en"),))


def _parsed(body: bytes) -> tuple[str, dict[str, Any]]:
    """The token, and its claims: at least an event in them. Nothing is verified.    Raises: Malformed."""
    try:
        token = body.decode("ascii")
        claims = document(jwt.payload(token))
    except (UnicodeDecodeError, SignatureMismatch):
        raise Malformed("not a JWT") from None
    events = claims.get("events")
    if not isinstance(events, dict) or not 0 < len(events) <= MOST_EVENTS:
        raise Malformed("events")
    if not all(isinstance(said, dict) for said in events.values()):
        raise Malformed("events")
    return token, claims


def _accounts(claims: Mapping[str, Any], stream: Stream) -> tuple[str, ...]:
    """Whom the SET is about, as far as its issuer speaks for them.    Raises: Malformed, different people."""
    issuers = (stream.issuer or "", *stream.subject_issuers)

    def speaks_for(issuer: str) -> bool:
        return any(same_issuer(issuer, one) for one in issuers)

    told = [accounts_of(said, claims, stream.subject, speaks_for) for said in claims["events"].values()]
    people = {frozenset(key for key in keys if not key.startswith(TOKEN)) for keys in told}
    if len(people - {frozenset()}) > 1:
        raise Malformed("several subjects")
    return tuple(dict.fromkeys(chain.from_iterable(told)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
