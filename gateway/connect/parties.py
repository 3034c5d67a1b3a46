"""The other side of a session: its integration at the provider, its facts, and the way out to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway import exchange
from gateway.catalog import Integration
from gateway.connect.store import Session
from gateway.service import Gateway
from providers import oauth
from providers.calls import Http
from providers.errors import Misconfigured
from providers.oauth import App, Asked, OAuthFacts
from providers.registry import Provider


@dataclass(frozen=True, slots=True)
class Party:
    """An integration, ready to be spoken to for one session."""

    integration: Integration
    facts: OAuthFacts
    app: App
    http: Http

    @property
    def provider(self) -> Provider:
        return self.integration.provider

    @property
    def issuer(self) -> str | None:
        """What `iss` must be (RFC 9207); None: this server is not known to name itself.    Raises: Misconfigured."""
        return None if self.facts.issuer is None else oauth.filled(self.facts.issuer, self.facts, self.app)

    def authorize_url(self, asked: Asked) -> str:
        """Where the browser is sent.    Raises: Misconfigured."""
        if self.facts.authorize_url is None:
            raise Misconfigured("nobody_consents")
        make = self.provider.authorize
        parameters = oauth.authorize_parameters(self.facts, self.app, asked) if make is None else make(asked, self.app)
        return oauth.with_query(oauth.filled(self.facts.authorize_url, self.facts, self.app), parameters)


def party(gateway: Gateway, integration: Integration, parameters: Mapping[str, str]) -> Party:
    """`parameters`: the URL parts that were chosen for the session.    Raises: Misconfigured, NotAllowed."""
    facts = exchange.facts_of(integration)
    app = exchange.app_of(integration, gateway.settings.public_url, parameters, now=gateway.clock.now())
    http = gateway.outbound.for_app(integration.provider.facts.name, facts, app, kind="connect")
    return Party(integration, facts, app, http)


def asked_of(session: Session, profiles: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """The scopes of one consent by access profile, and which of them the connection works without."""
    scopes = {name: session.profiles[name].ask for name in profiles}
    required = {scope for name in profiles for scope in session.profiles[name].profile.required}
    return scopes, frozenset(scope for of in scopes.values() for scope in of) - required
