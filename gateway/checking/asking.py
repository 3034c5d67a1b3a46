"""Finding out whether a grant lives: probe it, refresh it, or both. What that says is for `checker.py` to tell the machine.

Which means decides is a fact of the provider. A call that an access token passes says nothing of the refresh token where
access tokens are read by their signature alone (`OAuthFacts.probe_acquits`); then a refresh has to say it. Where neither can
be had, nothing can contradict what a verified message said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from gateway import exchange
from gateway.breakers.breakers import Breakers
from gateway.breakers.ways import Shut, way_of
from gateway.checking.store import Check
from gateway.clock import Clock
from gateway.connections import grants
from gateway.errors import Problem
from gateway.outbound import Outbound
from gateway.tokens import rotation
from gateway.tokens.problems import ConnectionSuspended
from gateway.tokens.refresh import Refresher
from gateway.tokens.rotation import Due
from gateway.vault.cipher import SealBroken
from providers.errors import GrantEnded, OddAnswer, ProviderError, ScopeLacking, Suspended

NEW_S = 60.0  # a token set younger than this is not renewed for a report that nothing confirms

# alive: it works; refreshed: it was renewed, so it works; dead: a probe, refused: the token endpoint, says that it does not;
# suspended: its provider has paused it; overtaken: it is another one by now; too_new: asked a moment ago; no_means: nothing
# can be asked; undecided: no usable answer.
Answer = Literal["alive", "refreshed", "dead", "refused", "overtaken", "too_new", "no_means", "undecided", "suspended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out. `scopes`: those that the access token has, where a probe told them."""

    answer: Answer
    scopes: frozenset[str] | None = None
    code: str | None = None
    retry_after_s: float | None = None


class Asking:
    """Asks providers, for one process. No database connection is held meanwhile."""

    def __init__(
        self, refresher: Refresher, outbound: Outbound, clock: Clock, public_url: str, breakers: Mapping[str, Breakers]
    ) -> None:
        """`breakers`: by region."""
        self._breakers = breakers
        self._refresher, self._outbound, self._clock, self._public_url = refresher, outbound, clock, public_url

    async def ask(self, check: Check, due: Due) -> Found:
        """Whether the grant lives, by the means that are right for what is in doubt."""
        if check.why == "refused" or check.reason == rotation.ODD:  # it is the token endpoint that is in doubt
            return await self._refreshed(due, doubts=True)
        if check.signal == "scopes_changed":
            return await self._scopes(due)
        probed = await self._probed(due)
        if check.why == "rejected":  # it is the access token that was refused
            return probed if probed.answer in ("alive", "undecided", "suspended") else await self._renewed(due, probed)
        if probed.answer in ("undecided", "suspended"):
            return probed
        acquits = exchange.facts_of(due.integration).probe_acquits
        if probed.answer == "alive" and acquits:
            return probed
        if probed.answer == "dead":  # or over a moment ago, its successor on its way: a refresh tells them apart
            return await self._renewed(due, probed, doubts=check.why != "contested")
        if not self._may_refresh(due):
            return probed
        if check.why == "hint" and _is_new(due):
            return Found(answer="too_new")
        return await self._refreshed(due, doubts=check.why != "contested")

    async def _scopes(self, due: Due) -> Found:
        """The scopes it has now: a probe tells them, or a new token set does."""
        probed = await self._probed(due)
        if probed.scopes is not None or not self._may_refresh(due):
            return probed
        if due.stored.grant.kind == "code" and _is_new(due):
            return Found(answer="too_new")
        return await self._refreshed(due, doubts=True)

    async def _renewed(self, due: Due, probed: Found, *, doubts: bool = True) -> Found:
        """The access token is of no use: a refresh mends it, or says that the grant is dead."""
        if not self._may_refresh(due):
            return probed
        if probed.answer == "no_means" and _is_new(due):
            return Found(answer="too_new")
        return await self._refreshed(due, doubts=doubts)

    def _may_refresh(self, due: Due) -> bool:
        return due.can_be_asked and grants.may_refresh(due.stored.grant)

    async def _refreshed(self, due: Due, *, doubts: bool) -> Found:
        """`refused`: the token endpoint calls it dead; with `doubts` the machine has been told so."""
        grant = due.stored.grant
        seen = (grant.generation, grant.token_version)
        try:
            outcome = await self._refresher.attempt(
                due.region, (grant.connection_id, grant.access_profile), seen, doubts=doubts
            )
        except ConnectionSuspended:
            return Found(answer="suspended", code="suspended")
        except Problem as problem:
            return Found(answer="undecided", code=problem.code, retry_after_s=problem.retry_after_s)
        return Found(answer=outcome)

    async def _probed(self, due: Due) -> Found:
        stored = due.stored
        if due.integration.provider.probe is None or stored.data_key_version is None or stored.expired:
            return Found(answer="no_means")
        way = way_of(due.integration, "api", stored.grant.parameters)
        try:
            async with self._breakers[due.region.name].call(way):
                scopes = await rotation.probe(self._outbound, due, self._public_url, self._now())
            return Found(answer="alive", scopes=scopes)
        except Shut as shut:
            return Found(answer="undecided", code=shut.code or shut.why, retry_after_s=shut.retry_after_s)
        except GrantEnded as error:
            return Found(answer="dead", code=error.code)
        except ScopeLacking:
            return Found(answer="alive")
        except Suspended as error:
            return Found(answer="suspended", code=error.code)
        except SealBroken:
            return Found(answer="undecided", code="seal_broken")
        except OddAnswer as error:
            await rotation.odd(due, self._refresher.new_id, "odd_api")
            return Found(answer="undecided", code=error.code)
        except (ProviderError, Problem) as error:
            return Found(answer="undecided", code=error.code, retry_after_s=error.retry_after_s)

    def _now(self) -> datetime:
        return self._clock.now()


def _is_new(due: Due) -> bool:
    """Its token set came a moment ago, and that says as much as another one would."""
    return due.stored.age_s is None or due.stored.age_s < NEW_S
