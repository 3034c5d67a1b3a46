"""What happens to one inbound delivery between its last byte and its answer: verify, split, keep, answer.

    verify raw bytes -> challenge? -> items -> events -> append (one commit with whatever arrived meanwhile) -> 2xx

Everything fails closed: an answer below 300 that is not a handshake's means that each verified item is committed.
The door (`web/hooks.py`) has read the bytes and found the integration; nothing here reads a socket.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import ParamSpec, TypeVar

import orjson
from prometheus_client import Counter

from gateway import ids, metrics
from gateway.catalog import Integration
from gateway.endpoints.store import HookEndpoint
from gateway.regions import Region, account_hash
from gateway.service import Gateway
from gateway.stream.append import Kept, NewEvent
from gateway.vault.keyring import Keyring
from providers.contract import Answer, Delivery, Item, Trust, Verified
from providers.errors import HandshakeRefused, Malformed, SignatureMismatch, UnknownKey

P = ParamSpec("P")
T = TypeVar("T")

# Above this many bytes hashing and parsing leave the event loop: one large body must not hold up small ones.
THREAD_BYTES = 256 * 1024
OWN_KEY_WINDOW_S = 3600  # an event without a key of the provider's: long enough for a batch to be sent again

# A handshake's answer carries text that a stranger chose: a browser must never render it.
SAFE_TEXT = (("x-content-type-options", "nosniff"), ("content-security-policy", "sandbox; default-src 'none'"))


@dataclass(slots=True)
class Arrival:
    """A delivery at a known integration (and hook endpoint, if its URL names one)."""

    integration: Integration
    endpoint: HookEndpoint | None
    region: Region
    delivery: Delivery

    @property
    def trust(self) -> Trust:
        """The endpoint's own secrets where it has some, else the integration's."""
        trust = self.integration.trust
        if self.endpoint is None:
            return trust
        return replace(trust, endpoint=True, secrets=self.endpoint.secrets or trust.secrets)


async def take(gateway: Gateway, arrival: Arrival, now: datetime) -> Answer:
    """Verify and keep one delivery.

    Raises: Refused (nothing was kept), Unavailable (not known to be kept), Unstorable.
    """
    integration, delivery = arrival.integration, arrival.delivery
    facts, trust = integration.provider.facts, arrival.trust
    if integration.keys_at is not None:
        trust = replace(trust, keys=gateway.published_keys.held(integration.keys_at))
    size, keyring = len(delivery.body), gateway.control_keyring
    try:
        judged = await run(size, judge, keyring, arrival, trust, now)
    except UnknownKey:
        if integration.keys_at is None:
            raise
        # The provider may have changed its keys a moment ago; asked again at most once a minute.
        trust = replace(trust, keys=await gateway.published_keys.fetched(integration.keys_at))
        judged = await run(size, judge, keyring, arrival, trust, now)
    if isinstance(judged, Answer):
        return judged

    if judged.partly:
        count_refused(integration, SignatureMismatch.reason)  # items of the request that did not verify by themselves
    kept = await arrival.region.appender.keep(judged.events)
    count_kept(integration, kept)
    arrival.region.traffic.delivered(integration.id)
    return acknowledgement(judged.ack_status or facts.ack_status)


@dataclass(slots=True)
class Judged:
    """A delivery that verified: its events, and whether it held items that did not."""

    events: list[NewEvent]
    partly: bool
    ack_status: int | None  # as of `Verified`


def judge(keyring: Keyring, arrival: Arrival, trust: Trust, now: datetime) -> Answer | Judged:
    """The answer to a handshake, or the events of a verified delivery. Pure, and for a large body in a thread.

    Raises: Refused.
    """
    delivery, provider = arrival.delivery, arrival.integration.provider
    if (answer := _unsigned_handshake(arrival, trust)) is not None:
        return answer
    if delivery.method != "POST":
        raise HandshakeRefused("this provider shakes hands in another way")
    verified = provider.verify(delivery, trust, now)
    if provider.challenge is not None and (answer := provider.challenge(delivery, trust)) is not None:
        return replace(answer, headers=(*answer.headers, *SAFE_TEXT))
    items = provider.items(delivery, verified)
    if not items:
        raise Malformed("the delivery says nothing")
    events = _events(keyring, arrival, verified, items, now)
    return Judged(events, verified.only is not None, verified.ack_status)


acknowledgement = lru_cache(Answer)  # a provider's is always the same


async def run(size: int, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """`work`, in a thread where the body it looks at is large."""
    if size > THREAD_BYTES:
        return await asyncio.to_thread(work, *args, **named)
    return work(*args, **named)


@lru_cache(maxsize=1024)
def _counters(provider: str, integration: str) -> tuple[Counter, Counter, Counter, Counter]:
    """kept, duplicate, dropped, unattributed: looking labels up costs more than counting."""
    return (
        metrics.DELIVERIES.labels(provider, integration, "kept"),
        metrics.DELIVERIES.labels(provider, integration, "duplicate"),
        metrics.DELIVERIES.labels(provider, integration, "dropped"),
        metrics.UNATTRIBUTED.labels(provider, integration),
    )


_hashed = lru_cache(maxsize=65536)(account_hash)  # the same few accounts send again and again


def count_kept(integration: Integration, kept: Sequence[Kept]) -> None:
    """What became of each item of a delivery."""
    new, duplicate, dropped, unattributed = _counters(integration.provider.facts.name, integration.name)
    for one in kept:
        if one.duplicate:
            duplicate.inc()
            continue
        (dropped if one.seq is None and not one.matched else new).inc()
        if not one.matched:
            unattributed.inc()


def count_refused(integration: Integration, reason: str) -> None:
    """One more that was not taken, by reason."""
    metrics.REFUSED.labels(integration.provider.facts.name, integration.name, reason).inc()


def _unsigned_handshake(arrival: Arrival, trust: Trust) -> Answer | None:
    """PROTOCOLS 7: a handshake that proves nothing is answered only where somebody waits for it."""
    provider, delivery = arrival.integration.provider, arrival.delivery
    rule = provider.facts.handshake
    if rule is None or provider.handshake is None or delivery.method not in rule.methods:
        return None
    answer = provider.handshake(delivery, trust)
    if answer is None:
        return None
    if len(delivery.body) > rule.max_body:
        raise HandshakeRefused("the handshake's body is too large")
    if rule.where == "confirming" and (arrival.endpoint is None or arrival.endpoint.state != "confirming"):
        raise HandshakeRefused("no handshake is expected here")
    return replace(answer, headers=(*answer.headers, *SAFE_TEXT))


def _events(
    control_keyring: Keyring, arrival: Arrival, verified: Verified, items: Sequence[Item], now: datetime
) -> list[NewEvent]:
    integration, endpoint, region, delivery = arrival.integration, arrival.endpoint, arrival.region, arrival.delivery
    provider = integration.provider
    body_digest = hashlib.sha256(delivery.body).hexdigest()
    kept = provider.kept_headers
    verification: dict[str, object] = {"scheme": verified.scheme, "secret": verified.secret}
    if verified.signed_at is not None:
        verification["signed_at"] = verified.signed_at
    request: dict[str, object] = {"digest": "sha256:" + body_digest, "size": len(delivery.body)}
    if endpoint is not None:
        request["endpoint"] = ids.show(ids.ENDPOINT, endpoint.id)
    about: dict[str, object] = {
        "received_at": now,
        "headers": {k: v for k, v in delivery.headers.items() if k in kept},
        "verification": verification,
        "request": request,
    }
    # A delivery id is unique at its sender, and one that sends to several URLs may use it at each of them.
    scope = integration.id.bytes + (endpoint.id.bytes if endpoint is not None else b"")

    events = []
    for index, item in enumerate(items):
        event_id = ids.uuid7(now)
        data = item.data
        if len(items) > 1:
            about["item"] = {"index": index, "of": len(items)}
        if provider.redact is not None:
            data = provider.redact(item.data)
            if data != item.data:
                # Of the bytes as signed: the only proof left of what stood where we blanked.
                about["digest"] = "sha256:" + hashlib.sha256(item.data).hexdigest()
        key = event_id
        if item.dedupe is not None:
            key = region.keyring.mac_id("dedupe", scope + item.dedupe.encode("utf-8", "surrogatepass"))
        events.append(
            NewEvent(
                id=event_id,
                key=key,
                window_s=OWN_KEY_WINDOW_S if item.dedupe is None else provider.facts.dedupe_window_s,
                type=f"posthouse.delivery.{provider.facts.name}.{item.event}",
                time=now if item.occurred_at is None else _storable(item.occurred_at, now),
                integration=integration.id,
                connection=None if endpoint is None else endpoint.connection_id,
                accounts=tuple([_hashed(control_keyring, integration.id, account) for account in item.accounts]),
                drop_unmatched=integration.unattributed == "drop",
                signal=item.signal,
                content_type=item.content_type,
                delivery=orjson.dumps(about, option=_JSON),
                data=data,
            )
        )
        about.pop("digest", None)
    return events


_JSON = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def _storable(occurred_at: datetime, now: datetime) -> datetime:
    """The provider's time where it makes sense; a time before 1970 or a day ahead of us says nothing."""
    if not _EARLIEST <= occurred_at <= now + timedelta(days=1):
        return now
    return occurred_at
