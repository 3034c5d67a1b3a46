"""The ways out of the house: what fails together, and why one is shut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway import exchange
from gateway.catalog import Integration
from gateway.outbound import targets
from providers import oauth
from providers.errors import Misconfigured, NotAllowed
from providers.oauth import PART, OAuthFacts

Kind = Literal["token", "api", "subscription"]
# failing: no usable answers; limited: the provider said when to come again; misconfigured: it refuses the integration itself;
# guarded: it calls everybody's grants dead (the mass-failure guard); crowded: as many calls are under way as are
# allowed at once; budget: as many were made as are allowed in this time.
Why = Literal["failing", "limited", "misconfigured", "guarded", "crowded", "budget"]

_AUTHORITY = re.compile(r"https?://[^/?]+")


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of call of one integration at one host of its provider."""

    provider: str
    condition: str  # whose guard counts (`Integration.condition`)
    integration: UUID
    kind: Kind
    host: str
    chosen: bool = False  # the host: by a user, so that what is wrong with it is not the integration's fault

    @property
    def failing(self) -> str:
        """The scope of its breaker: everybody who calls that host so."""
        return f"{self.kind}:{self.host}"

    @property
    def limited(self) -> str:
        """The scope of its rate limit."""
        return f"limited:{self.kind}:{self.host}"

    @property
    def misconfigured(self) -> str:
        """The scope of its incident. Of one kind: that tokens serve at the API does not say that the client's secret is right."""
        return f"integration:{self.integration}:{self.kind}"


class Shut(Exception):
    """No call is made that way just now. Nothing has left us."""

    def __init__(self, why: Why, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(why)
        self.why, self.retry_after_s, self.code = why, retry_after_s, code


def way_of(
    integration: Integration, kind: Kind, parameters: Mapping[str, str] | None = None, *, minted: bool = False
) -> Way:
    """The way that a call goes. `parameters`: of its grant, where they are part of the host. `minted`: at the API's host.

    Where nobody can tell the host, because a part is missing or odd, it is named by its template: the call will say why.
    """
    name = integration.provider.facts.name
    try:
        facts = exchange.facts_of(integration)
    except Misconfigured:  # nor can it be called
        return Way(name, integration.condition, integration.id, kind, name)
    url = facts.token_url if kind == "token" and not minted else facts.api_base or facts.token_url
    start = _AUTHORITY.match(url)
    url = url if start is None else start[0]  # what a path lacks is no matter here
    chosen = PART.search(url) is not None  # the operator's parts are in the facts already
    return Way(name, integration.condition, integration.id, kind, _host(url, facts, parameters or {}), chosen)


def _host(url: str, facts: OAuthFacts, parts: Mapping[str, str]) -> str:
    app = oauth.App(client_id="", client_secret="", parts=parts)
    try:
        return targets.read(oauth.filled(url, facts, app)).place
    except (Misconfigured, NotAllowed):
        return url.partition("://")[2] or url
