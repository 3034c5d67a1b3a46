"""Keys that are published for us (Google's certificates, the JWKS that an integration's settings name): in memory.

By source, so integrations that name the same one share it; as fresh as the publisher asks for. `held` answers at once,
from memory, and sees to a fetch behind it when the keys are old. A delivery that names a key
not among them awaits `fetched`: one request however many deliveries wait, and within a minute of a good answer none,
so that forged key ids cannot make us call. While the provider is away the old keys go on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import structlog

from gateway.clock import Clock
from gateway.errors import Unavailable
from gateway.outbound import Outbound, ProviderHttp, places
from gateway.settings import Settings
from providers.calls import Request
from providers.contract import KeySource
from providers.errors import ProviderError

log = structlog.get_logger(__name__)

TIMEOUT_S = 1.5  # providers wait 3 s at least for an answer; the commit wants its share
AGAIN_S = 60.0  # after a good answer: how long an unknown key id is taken for a wrong one
RETRY_S = 5.0  # after a failure
LEAST_AGE_S, MOST_AGE_S = 60.0, 24 * 3600.0
MAX_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Source:
    """One URL's keys, and when it was asked. Times are `Clock.monotonic`."""

    url: str
    form: str
    http: ProviderHttp
    keys: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    fresh_until: float = float("-inf")
    asked_at: float = float("-inf")  # the last attempt, good or not
    good: bool = False  # whether that one brought keys
    flight: asyncio.Task[None] | None = None


class PublishedKeys:
    """The published keys of every source that an integration trusts."""

    def __init__(self, clock: Clock, settings: Settings, outbound: Outbound) -> None:
        self._clock, self._outbound = clock, outbound
        self._overrides = settings.keys_urls
        self._sources: dict[KeySource, _Source] = {}

    def held(self, at: KeySource) -> Mapping[str, Any]:
        """The keys in memory, by key id; empty at first. Starts a fetch in the background when they are old."""
        source = self._source(at)
        now = self._clock.monotonic()
        if now >= source.fresh_until and now >= source.asked_at + RETRY_S:
            self._fly(source)
        return source.keys

    async def fetched(self, at: KeySource) -> Mapping[str, Any]:
        """The keys after asking once more, for a delivery that names one which is not held.

        Raises: Unavailable: the provider could not be asked, so nobody knows whether there is such a key.
        """
        source = self._source(at)
        if source.flight is None:
            waited = self._clock.monotonic() - source.asked_at
            if source.good and waited < AGAIN_S:
                return source.keys
            if source.good or waited >= RETRY_S:
                self._fly(source)
        if source.flight is not None:
            await asyncio.shield(source.flight)
        if not source.good:
            raise Unavailable(f"the published keys of {at.provider} cannot be fetched just now", retry_after_s=5)
        return source.keys

    async def close(self) -> None:
        """Cut what is under way."""
        flights = [source.flight for source in self._sources.values() if source.flight is not None]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _source(self, at: KeySource) -> _Source:
        source = self._sources.get(at)
        if source is None:
            url = self._overrides.get(at.provider, at.url)
            http = self._outbound.for_provider(
                at.provider, operator_hosts=places([url]), kind="keys", deadline_s=TIMEOUT_S, max_bytes=MAX_BYTES
            )
            source = self._sources[at] = _Source(url, at.form, http)
        return source

    def _fly(self, source: _Source) -> None:
        if source.flight is None:
            source.flight = asyncio.create_task(self._fetch(source), name=f"keys:{source.url}")

    async def _fetch(self, source: _Source) -> None:
        """One attempt. Never raises: what it found stands in `source`."""
        source.asked_at = self._clock.monotonic()
        try:
            keys, age_s = await self._ask(source)
            source.keys, source.good = MappingProxyType(keys), True
            source.fresh_until = self._clock.monotonic() + min(max(age_s, LEAST_AGE_S), MOST_AGE_S)
        except (ProviderError, ValueError, RecursionError) as error:
            source.good = False
            why = error.code if isinstance(error, ProviderError) else type(error).__name__
            log.warning("published_keys.failed", url=source.url, error=why, held=len(source.keys))
        finally:
            source.flight = None

    async def _ask(self, source: _Source) -> tuple[dict[str, Any], float]:
        answer = await source.http.send(Request("GET", source.url, {"accept": "application/json"}))
        if answer.status != 200:
            raise ValueError("status")
        return parse(answer.body, source.form), max_age_s(answer.headers)


def parse(body: bytes, form: str) -> dict[str, Any]:
    """Keys by key id: of a JWKS, each key's JSON object; of a PEM map, each certificate's text.

    Raises: ValueError: the body is neither, or holds no key.
    """
    whole = json.loads(body)
    if not isinstance(whole, dict):
        raise ValueError("shape")
    if form == "jwks":
        listed = whole.get("keys")
        entries = [key for key in listed if isinstance(key, dict)] if isinstance(listed, list) else []
        keys: dict[str, Any] = {key["kid"]: key for key in entries if isinstance(key.get("kid"), str)}
    else:
        keys = {kid: pem for kid, pem in whole.items() if isinstance(pem, str) and pem.startswith("-----BEGIN ")}
    if not keys:
        raise ValueError("no keys")
    return keys


def max_age_s(headers: Mapping[str, str]) -> float:
    """For how long an answer may be used, by its `cache-control` and `age` (lower-case names); 0 if it does not say."""
    told = re.search(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,10})", headers.get("cache-control", ""), re.IGNORECASE)
    aged = headers.get("age", "0").strip()
    spent = int(aged) if aged.isascii() and aged.isdigit() and len(aged) <= 10 else 0
    return float(max(int(told[1]) - spent, 0)) if told else 0.0
