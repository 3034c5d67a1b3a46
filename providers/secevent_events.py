"""What security events there are, whom they are about, and what they say about grants.

Sources: OpenID RISC Profile 1.0, OAuth Event Types 1.0 (draft), OpenID CAEP 1.0, OpenID SSF 1.0, RFC 9493 (subjects).
Google sends some of them: https://developers.google.com/identity/protocols/risc
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from providers.contract import event_name
from providers.errors import Malformed
from providers.oauth import TokenSet
from providers.reading import account, document, identifier, instant, text
from providers.signals import Knows, Said, Says, Signal, Tells, known_by

_SECEVENT = "https://schemas.openid.net/secevent/"
RISC, OAUTH, CAEP, SSF = (f"{_SECEVENT}{of}/event-type/" for of in ("risc", "oauth", "caep", "ssf"))
# Google's names for RISC and OAuth events before those were standards; its documentation still lists them.
LEGACY = "https://accounts.google.com/risc/event/"

RISC_SPEC = "https://openid.net/specs/openid-risc-profile-specification-1_0.html"
OAUTH_SPEC = "https://openid.net/specs/oauth-event-types-1_0-01.html"
CAEP_SPEC = "https://openid.net/specs/openid-caep-1_0-final.html"
SSF_SPEC = "https://openid.net/specs/openid-sharedsignals-framework-1_0-final.html"


@dataclass(frozen=True, slots=True)
class Kind:
    """A security event that we know."""

    name: str
    spec: str
    says: Says | None = None  # about grants
    knows: Knows = "nothing"

    @property
    def event(self) -> str:
        return f"security.{self.name}"

    @property
    def reason(self) -> str:
        return self.name.replace("-", "_")


KINDS: dict[str, Kind] = {
    # Sessions are not grants: that they end is a weak hint that something is wrong, and worth a look.
    RISC + "sessions-revoked": Kind("sessions-revoked", RISC_SPEC, "doubtful"),
    RISC + "account-credential-change-required": Kind("account-credential-change-required", RISC_SPEC, "doubtful"),
    RISC + "credential-compromise": Kind("credential-compromise", RISC_SPEC, "doubtful"),
    RISC + "account-disabled": Kind("account-disabled", RISC_SPEC, "suspended", "time"),
    RISC + "account-enabled": Kind("account-enabled", RISC_SPEC, "resumed", "time"),
    # Not `final`: a subject that is a mailbox may get another owner.
    RISC + "account-purged": Kind("account-purged", RISC_SPEC, "revoked", "time"),
    # In the OAuth name space: asked for under RISC's, Google silently sends none.
    OAUTH + "tokens-revoked": Kind("tokens-revoked", OAUTH_SPEC, "revoked", "time"),
    OAUTH + "token-revoked": Kind("token-revoked", OAUTH_SPEC, "revoked", "token"),
    CAEP + "session-revoked": Kind("session-revoked", CAEP_SPEC, "doubtful"),
    CAEP + "credential-change": Kind("credential-change", CAEP_SPEC, "doubtful"),
    CAEP + "token-claims-change": Kind("token-claims-change", CAEP_SPEC, "doubtful"),
    CAEP + "device-compliance-change": Kind("device-compliance-change", CAEP_SPEC),
    RISC + "verification": Kind("verification", RISC_SPEC),
    SSF + "verification": Kind("verification", SSF_SPEC),
    SSF + "stream-updated": Kind("stream-updated", SSF_SPEC),
}
KINDS |= {LEGACY + kind.name: kind for uri, kind in KINDS.items() if uri.startswith((RISC, OAUTH))}

# Why an account was disabled, in our words. https://developers.google.com/identity/protocols/risc#supported_event_types
DISABLED = {"hijacking": "account_hijacked", "bulk-account": "account_bulk_created"}

# How a token is named. The prefix is its first 16 characters; the hash is SHA-512 of SHA-512 of the token's bytes, in
# base64. That the inner digest goes in as bytes and not as text, and which base64 it is, Google does not say: several
# receivers in use read it so; not verified by us. Both alphabets, with and without padding, come out the same here.
PREFIX, HASH = "prefix", "hash_base64_sha512_sha512"
PREFIX_LENGTH = 16

TOKEN = "token:"  # what account keys of tokens begin with

MOST_ALIASES = 20


def tells(names: Mapping[str, str] | None = None) -> tuple[Tells, ...]:
    """`Facts.signals` of a provider that sends these events (`name: source`); None: all that there are."""
    kinds = {kind.name: kind for kind in KINDS.values() if kind.says is not None or kind.spec == CAEP_SPEC}
    wanted = {name: kind.spec for name, kind in kinds.items()} if names is None else names
    return tuple(
        Tells(
            event=kinds[name].event,
            says=() if (says := kinds[name].says) is None else (says,),
            knows=kinds[name].knows,
            source=source,
        )
        for name, source in wanted.items()
    )


def name_of(uri: str) -> str:
    """Our name of an event. What we do not know is named apart, so that its last word makes no signal of it."""
    kind = KINDS.get(uri)
    return kind.event if kind is not None else f"security.other.{event_name(uri.rstrip('/').rpartition('/')[2])}"[:100]


def moment(value: Any) -> datetime | None:
    """A NumericDate (RFC 7519 section 2); None where it is none."""
    return None if isinstance(value, str) else instant(value)


def happened(claims: Mapping[str, Any], said: Mapping[str, Any] | None = None) -> datetime | None:
    """When it happened: the earliest time that the SET knows.

    `toe` (RFC 8417) and `event_timestamp` (CAEP) are the event's own; `iat` is when the SET was made, which is later:
    by that alone a grant that was renewed in between would look revoked. Nothing can have happened after `iat`, so a
    time in other units (milliseconds, in drafts of CAEP) loses against it. Google's samples have `iat` only.
    """
    times = [claims.get("toe"), claims.get("iat"), None if said is None else said.get("event_timestamp")]
    return min((found for found in map(moment, times) if found is not None), default=None)


def interpret(said: Said) -> list[Signal]:
    """What a kept event says of the grants of its accounts, each with the time that was signed.    Raises: Malformed."""
    claims = document(said.data)
    events = claims.get("events")
    if not isinstance(events, dict):
        raise Malformed("events")
    found: list[Signal] = []
    for uri, payload in events.items():
        kind = KINDS.get(uri)
        if kind is None or kind.event != said.event or kind.says is None or not isinstance(payload, dict):
            continue
        subject = _subject(payload, claims)
        if kind.knows == "token" and not (isinstance(subject, dict) and _format(subject) == "oauth_token"):
            raise Malformed("names no token")  # but a person: which of the grants ended, nobody can tell
        reason = DISABLED.get(text(payload.get("reason")), kind.reason) if kind.says == "suspended" else kind.reason
        when = happened(claims, payload) if kind.knows == "time" else None
        knows = known_by(when) if kind.knows == "time" else kind.knows
        found.append(Signal(says=kind.says, reason=reason, knows=knows, at=when))
    return list(dict.fromkeys(found))  # the same event under two names


def token_marks(tokens: TokenSet) -> tuple[str, ...]:
    """The account keys by which a security event names this refresh token; Google names no access tokens."""
    token = tokens.refresh_token
    if not token:
        return ()
    twice = hashlib.sha512(hashlib.sha512(token.encode("utf-8", "surrogatepass")).digest()).digest()
    short = account("token:prefix", token[:PREFIX_LENGTH]) if len(token) >= PREFIX_LENGTH else ()
    return (*short, f"token:sha512:{_spelt(twice)}")


def accounts_of(
    said: Mapping[str, Any], claims: Mapping[str, Any], kind: str, speaks_for: Callable[[str], bool] | None = None
) -> tuple[str, ...]:
    """Whom an event is about: the keys of its own subject, else of the SET's (RFC 9493 `sub_id`).

    `kind`: of the key that `sub` makes. `speaks_for(issuer)`: whose `sub` counts; None: everybody's.
    """
    return tuple(dict.fromkeys(_keys(_subject(said, claims), kind, speaks_for)))


def _subject(said: Mapping[str, Any], claims: Mapping[str, Any]) -> Any:
    return said.get("subject") or said.get("sub_id") or claims.get("sub_id")


def _format(subject: Mapping[str, Any]) -> str:
    """RFC 9493 says `format`, and `iss_sub`; older drafts, and Google, `subject_type` and `iss-sub`."""
    return text(subject.get("format") or subject.get("subject_type")).lower().replace("-", "_")


def _keys(subject: Any, kind: str, speaks_for: Callable[[str], bool] | None) -> Iterator[str]:
    if not isinstance(subject, dict):
        return
    form = _format(subject)
    if form == "complex" or (
        not form and isinstance(subject.get("user"), dict)
    ):  # SSF 1.0 section 3: a person's device
        user = subject.get("user")
        if isinstance(user, dict) and _format(user) not in ("complex", "aliases"):
            yield from _keys(user, kind, speaks_for)
    elif form == "aliases":
        listed = subject.get("identifiers")
        for one in listed[:MOST_ALIASES] if isinstance(listed, list) else ():
            if isinstance(one, dict) and _format(one) not in ("complex", "aliases"):
                yield from _keys(one, kind, speaks_for)
    elif form in ("iss_sub", "id_token_claims"):
        issuer = subject.get("iss")
        if issuer is not None and speaks_for is not None and not speaks_for(text(issuer)):
            return
        person = account(kind, subject.get("sub"))
        yield from person
        # At Google `sub` is the one stable key: a mailbox may have had another owner when the event happened.
        if not person or kind == "account":
            yield from _mailbox(subject)
    elif form == "email":
        yield from _mailbox(subject)
    elif form in ("opaque", "account") and kind == "account":
        yield from account(kind, subject.get("id" if form == "opaque" else "uri"))
    elif form == "oauth_token":
        yield from _token(subject)


def _mailbox(subject: Mapping[str, Any]) -> tuple[str, ...]:
    return account("email", identifier(text(subject.get("email")).lower()))


def _token(subject: Mapping[str, Any]) -> tuple[str, ...]:
    if subject.get("token_type") != "refresh_token":
        return ()
    token, how = text(subject.get("token")), subject.get("token_identifier_alg")
    if how == PREFIX and len(token) == PREFIX_LENGTH:
        return account("token:prefix", token)
    if how == HASH and (digest := _digest(token)) is not None:
        return (f"token:sha512:{_spelt(digest)}",)
    return ()


def _digest(coded: str) -> bytes | None:
    plain = coded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        found = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return None
    return found if len(found) == hashlib.sha512().digest_size else None


def _spelt(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
