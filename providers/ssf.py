"""Shared Signals (SSF, CAEP, RISC): security events of any transmitter, pushed to us as tokens that it signs.

Nobody connects accounts here. Where it is an OAuth server too, `generic-oauth2` takes the same tokens for the accounts
that were connected there; here the platform says itself which accounts a connection has, by the keys

- `account:` and the `sub` (of subjects by issuer and subject), the id (opaque ones) or the URI (accounts),
- `email:` and the address in lower case.

How a stream is set up at the transmitter (its configuration endpoint, or by hand) is the platform's: it needs our URL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from providers import secevent, secevent_events
from providers.contract import Answer, Delivery, Facts, Item, KeySource, Trust, Verified
from providers.errors import Refused
from providers.jwt import RS256, Algorithm
from providers.signals import Said, Signal
from providers.urls import Fixed

FACTS = Facts(
    name="ssf",
    title="Shared Signals (SSF / CAEP)",
    docs_url="https://www.rfc-editor.org/rfc/rfc8935.html",
    signs_with="keys",
    ack_status=secevent.ACCEPTED,
    refused_status=400,  # RFC 8935 section 2.3
    dedupe_window_s=7 * 24 * 3600,  # the RFC leaves it to the transmitter how long it tries: a guess
    signals=secevent_events.tells(),
    one_service=False,
)

Name = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,1000}$")]


class Settings(BaseModel):
    """Who the transmitter is, and who we are to it."""

    model_config = ConfigDict(extra="forbid")

    issuer: Name = Field(description="`issuer` of its /.well-known/ssf-configuration.")
    keys_url: Fixed = Field(description="`jwks_uri` there.")
    audiences: list[Name] = Field(min_length=1, max_length=50, description="`aud` of the stream: any of these.")
    algorithms: list[Algorithm] = Field(["RS256"], min_length=1, description="That it may sign by.")
    subject_issuers: list[Name] = Field(
        default_factory=list, max_length=50, description="Whose subjects it speaks of, besides its own."
    )


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless the transmitter signed this for us."""
    said = trust.settings
    stream = secevent.Stream(
        issuer=said.get("issuer"),
        audiences=said.get("audiences") or (),
        algorithms=said.get("algorithms") or RS256,
        subject_issuers=said.get("subject_issuers") or (),
    )
    return secevent.verify(delivery, stream, trust.keys, now)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item for each name of the event."""
    return secevent.items(delivery, verified, FACTS, "account")


def interpret(said: Said) -> Sequence[Signal]:
    """What a security event says."""
    return secevent_events.interpret(said)


def redact(data: bytes) -> bytes:
    """Token identifiers."""
    return secevent.redact(data)


def decline(delivery: Delivery, refused: Refused) -> Answer | None:
    """In RFC 8935's words."""
    return secevent.decline(delivery, refused)


def key_source(settings: Mapping[str, Any]) -> KeySource | None:
    """The transmitter's JWKS."""
    return KeySource(FACTS.name, settings["keys_url"])
