"""The providers there are. A provider is a module; this file finds it and checks that it keeps the contract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

import providers
from providers.calls import Http, Response
from providers.contract import Answer, Delivery, Facts, Item, KeySource, Trust, Verified
from providers.errors import ProviderError, Refused
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet, settled
from providers.signals import Said, Signal

# Rooms of this package that are not a provider.
SHARED = frozenset(
    {
        *(
            "calls",
            "contract",
            "errors",
            "google_risc",
            "graphql",
            "jwt",
            "oauth",
            "oauth_calls",
            "reading",
            "registry",
        ),
        *("secevent", "secevent_events", "signals", "signatures", "slicing", "standard_items", "standard_signatures"),
        "urls",
    }
)

PARAMETERS = {
    "verify": ("delivery", "trust", "now"),
    "items": ("delivery", "verified"),
    "challenge": ("delivery", "trust"),
    "handshake": ("delivery", "trust"),
    "interpret": ("said",),
    "redact": ("data",),
    "decline": ("delivery", "refused"),
    "key_source": ("settings",),
    "check_secret": ("secret",),
    # Of connecting accounts: providers/oauth.py says what each is.
    "oauth_facts": ("settings",),
    "authorize": ("asked", "app"),
    "check_callback": ("parameters", "app"),
    "token_sets": ("answer", "asked"),
    "classify": ("response",),
    "identify": ("http", "app", "tokens"),
    "mint": ("http", "app", "accounts"),
    "revoke": ("http", "app", "tokens"),
    "probe": ("http", "app", "tokens"),
    "token_marks": ("tokens",),
    # Of security events: providers/google_risc.py.
    "stream_set_up": ("http", "app", "url"),
    "stream_verify": ("http", "app", "state"),
}
OF_OAUTH = (
    *("oauth_facts", "authorize", "check_callback", "token_sets", "classify", "identify", "mint", "revoke", "probe"),
    *("token_marks", "stream_set_up", "stream_verify"),
)


class NoSettings(BaseModel):
    """Of a provider whose integrations need say nothing beside their secrets."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider module with its abilities resolved once; None where it lacks one."""

    facts: Facts
    settings: type[BaseModel]
    verify: Callable[[Delivery, Trust, datetime], Verified]
    items: Callable[[Delivery, Verified], Sequence[Item]]
    challenge: Callable[[Delivery, Trust], Answer | None] | None
    handshake: Callable[[Delivery, Trust], Answer | None] | None
    interpret: Callable[[Said], Sequence[Signal]] | None
    redact: Callable[[bytes], bytes] | None
    check_secret: Callable[[bytes], str | None] | None
    decline: Callable[[Delivery, Refused], Answer | None] | None
    key_source: Callable[[Mapping[str, Any]], KeySource | None] | None
    guarded_headers: frozenset[str]  # refused when doubled
    kept_headers: frozenset[str]  # go into the event
    oauth: OAuthFacts | None = None  # None: it connects no accounts; of one integration: `oauth_for`
    oauth_facts: Callable[[Mapping[str, Any]], OAuthFacts] | None = None
    authorize: Callable[[Asked, App], Mapping[str, str]] | None = None
    check_callback: Callable[[Mapping[str, str], App], None] | None = None
    token_sets: Callable[[Mapping[str, Any], Asked], Mapping[str, TokenSet]] | None = None
    classify: Callable[[Response], ProviderError | None] | None = None
    identify: Callable[[Http, App, Mapping[str, TokenSet]], Awaitable[Identity]] | None = None
    mint: Callable[[Http, App, Sequence[str]], Awaitable[TokenSet]] | None = None
    revoke: Callable[[Http, App, TokenSet], Awaitable[None]] | None = None
    probe: Callable[[Http, App, TokenSet], Awaitable[frozenset[str] | None]] | None = None
    token_marks: Callable[[TokenSet], tuple[str, ...]] | None = None
    stream_set_up: Callable[[Http, App, str], Awaitable[None]] | None = None
    stream_verify: Callable[[Http, App, str], Awaitable[None]] | None = None

    @property
    def abilities(self) -> tuple[str, ...]:
        """What it can do, by the names of its functions."""
        return tuple(name for name in PARAMETERS if getattr(self, name) is not None)

    def oauth_for(self, settings: Mapping[str, Any]) -> OAuthFacts | None:
        """The OAuth facts of an integration with these settings; None: it connects no accounts."""
        facts = self.oauth if self.oauth_facts is None else self.oauth_facts(settings)
        return None if facts is None else settled(facts, settings)

    def keys_at(self, settings: Mapping[str, Any]) -> KeySource | None:
        """Where the keys are published that an integration with these settings trusts; None: it trusts none."""
        if self.key_source is not None:
            return self.key_source(settings)
        facts = self.facts
        return None if facts.keys_url is None else KeySource(facts.name, facts.keys_url, facts.keys_format)


class ContractBroken(TypeError):
    """A provider module does not keep the contract. Raised at start and in tests, never for a delivery."""


def load(module: ModuleType) -> Provider:
    """Check `module` against the contract.    Raises: ContractBroken."""
    facts = getattr(module, "FACTS", None)
    if not isinstance(facts, Facts):
        raise ContractBroken(f"{module.__name__}: FACTS is missing")
    for ability, names in PARAMETERS.items():
        function = getattr(module, ability, None)
        if function is None:
            if ability in ("verify", "items"):
                raise ContractBroken(f"{module.__name__}: {ability}() is missing")
            continue
        if tuple(inspect.signature(function).parameters) != names:
            raise ContractBroken(f"{module.__name__}: {ability}() takes {names}")
    if (getattr(module, "handshake", None) is None) != (facts.handshake is None):
        raise ContractBroken(f"{module.__name__}: handshake() and FACTS.handshake go together")
    oauth = getattr(module, "OAUTH", None)
    if oauth is None and (stray := [name for name in OF_OAUTH if hasattr(module, name)]):
        raise ContractBroken(f"{module.__name__}: {stray} without OAUTH")
    if oauth is not None and oauth.authorize_url is not None and not hasattr(module, "identify"):
        raise ContractBroken(f"{module.__name__}: people consent there, so identify() must tell whose account it is")
    if bool(facts.signals) != hasattr(module, "interpret"):
        raise ContractBroken(f"{module.__name__}: interpret() and FACTS.signals go together")
    if facts.dedupe_window_s < 72 * 3600:
        raise ContractBroken(f"{module.__name__}: dedupe window under 72 h")
    if stored := set(facts.signature_headers) & (set(facts.kept_headers) | set(facts.identity_headers)):
        raise ContractBroken(f"{module.__name__}: authenticating headers would be stored: {sorted(stored)}")
    m = cast(Any, module)
    return Provider(
        facts=facts,
        settings=getattr(module, "Settings", NoSettings),
        verify=m.verify,
        items=m.items,
        challenge=getattr(module, "challenge", None),
        handshake=getattr(module, "handshake", None),
        interpret=getattr(module, "interpret", None),
        redact=getattr(module, "redact", None),
        check_secret=getattr(module, "check_secret", None),
        decline=getattr(module, "decline", None),
        key_source=getattr(module, "key_source", None),
        guarded_headers=frozenset(facts.signature_headers) | frozenset(facts.identity_headers),
        kept_headers=frozenset(facts.kept_headers) | frozenset(facts.identity_headers) | {"content-type", "user-agent"},
        oauth=oauth,
        **{name: getattr(module, name, None) for name in OF_OAUTH},
    )


@cache
def all_providers() -> dict[str, Provider]:
    """Every provider by name, e.g. `all_providers()["slack"]`."""
    found = {}
    for info in pkgutil.iter_modules(providers.__path__):
        if info.name in SHARED:
            continue
        provider = load(importlib.import_module(f"providers.{info.name}"))
        if provider.facts.name != info.name.replace("_", "-"):
            raise ContractBroken(f"{info.name}: FACTS.name is {provider.facts.name!r}")
        found[provider.facts.name] = provider
    return found
