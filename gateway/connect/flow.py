"""The browser's way through a session: the link, the button, and what the provider sends it back with (PROTOCOLS 7).

GET of a link changes nothing, since mail programs and chats look at links. The button binds the session to the browser
that pressed it. What comes back is taken once, from that browser only: the session's state is claimed before the code
is exchanged, and no database connection is held while the provider is asked. Tokens are sealed at once and staged; no
API reads them before the platform's backend has completed the session.

Sources: RFC 9700 (sections 2.1, 4.4 mix-up, 4.5 code injection, 4.7 CSRF), RFC 9207, RFC 6749 section 4.1.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlencode
from uuid import UUID

import structlog

from gateway import exchange, ids, metrics
from gateway.catalog import Integration
from gateway.connect import leaving, parties, secrets, store, wishes
from gateway.connect.outcomes import Kind, Offer, Outcome, Redirect, Told
from gateway.connect.parties import Party
from gateway.connect.secrets import Proof
from gateway.connect.store import Session
from gateway.integrations.profiles import returns_to
from gateway.regions import Region
from gateway.service import Gateway
from providers.errors import Misconfigured, ProviderError
from providers.oauth import Asked

CONSENT_S = 600.0  # how long a consent may take, from the button to the callback

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A session, where it lives, and its integration."""

    region: Region
    session: Session
    integration: Integration


class Flow:
    """What a browser does, for one process."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def look(self, link: str) -> Outcome:
        """The page behind a link. Nothing is changed."""
        found = await self._by_link(link)
        if found is None:
            return Told(kind="unknown")
        session = found.session
        if (kind := _closed(session)) is not None:
            return Told(kind=kind, title=title(found.integration), back=back(found.integration, session))
        try:
            facts = exchange.facts_of(found.integration)
        except Misconfigured:  # it may be mended before the button is pressed: so nothing is noted yet
            return Told(kind="misconfigured", title=title(found.integration), back=back(found.integration, session))
        ahead, consents = session.asked, 0
        while ahead:
            ahead, consents = ahead[len(wishes.next_consent(ahead, facts)) :], consents + 1
        scopes = dict.fromkeys(scope for name in session.asked for scope in session.profiles[name].ask)
        return Offer(
            title=title(found.integration), consents=consents, scopes=tuple(scopes), reconnects=session.reconnects
        )

    async def press(self, link: str, browser: str | None) -> Outcome:
        """The button: this browser is on its way. `browser`: its cookie, or None. `link`: a link, or a session's id,

        with which only the browser that the session is bound to gets any further.
        """
        session_id = ids.parse(ids.SESSION, link)
        found = await self._by_link(link) if session_id is None else await self._by_id(session_id)
        if found is None:
            return Told(kind="unknown")
        session, keyring = found.session, found.region.keyring
        if (kind := _closed(session)) is not None:
            return Told(kind=kind, title=title(found.integration), back=back(found.integration, session))
        bound = session.state == "opened"
        if (bound or session_id is not None) and not is_of(found, browser):
            return Told(kind="used")
        browser = browser if browser is not None and secrets.is_one(browser) else secrets.fresh()
        going = await self._send_off(found, secrets.hashed(keyring, "browser", browser))
        if isinstance(going, Redirect):
            if not bound:
                count(found.integration, "opened")
            return replace(going, cookie=browser)
        return going

    async def _send_off(self, found: Found, browser_hash: bytes) -> Outcome:
        """To the provider, for the next consent."""
        session, region = found.session, found.region
        state, proof = secrets.fresh(), Proof.fresh()
        try:
            party = parties.party(self.gateway, found.integration, session.parameters)
            url = party.authorize_url(_asked(party, session, state, proof))
        except ProviderError as error:
            return await self.stopped(found, "misconfigured", error.code)
        begun = await store.begin(
            region.database, session.id, browser_hash=browser_hash, state_hash=secrets.hashed(region.keyring, "state", state),
            sealed_proof=proof.sealed(region.keyring, region.name, session.id), ttl_s=CONSENT_S,
        )  # fmt: skip
        return Redirect(url) if begun else Told(kind="used", title=title(found.integration))

    async def next(self, found: Found, session: Session) -> Outcome:
        """On to the next consent of the session, in the same browser."""
        assert session.browser_hash is not None
        return await self._send_off(replace(found, session=session), session.browser_hash)

    async def stopped(self, found: Found, kind: Kind, reason: str | None) -> Told:
        """A step that did not succeed: noted, counted, and told with the ways on there are."""
        session, database = found.session, found.region.database
        if kind == "misconfigured":  # nobody in front of a browser can mend that
            async with database.transaction() as tx:
                await leaving.staged(tx, self.gateway, found.region, session)
                await store.fail(tx, session, kind, reason)
        else:
            await store.note(database, session.id, kind, reason)
        count(found.integration, kind)
        log.info("connect.stopped", integration=found.integration.name, outcome=kind, reason=reason)
        return Told(
            kind=kind,
            title=title(found.integration),
            session=None if kind == "misconfigured" else session.id,
            back=back(found.integration, session, outcome=kind),
        )

    async def by_state(self, state: str) -> Found | None:
        """The session that waits for an answer with this `state`."""
        for region in self.gateway.regions:
            found = await store.by_state(region.database, secrets.hashed(region.keyring, "state", state))
            if found is not None:
                return self._with_integration(region, found)
        return None

    async def _by_link(self, link: str) -> Found | None:
        if not secrets.is_one(link):
            return None
        for region in self.gateway.regions:
            found = await store.by_link(region.database, secrets.hashed(region.keyring, "link", link))
            if found is not None:
                return self._with_integration(region, found)
        return None

    async def _by_id(self, session_id: UUID) -> Found | None:
        for region in self.gateway.regions:
            found = await store.find(region.database, session_id)
            if found is not None:
                return self._with_integration(region, found)
        return None

    def _with_integration(self, region: Region, session: Session) -> Found | None:
        """None: the integration was removed meanwhile, or connects no accounts any more."""
        integration = self.gateway.catalog.integration_by_id(session.integration_id)
        if integration is None or integration.provider.oauth is None:
            return None
        return Found(region, session, integration)


def is_of(found: Found, browser: str | None) -> bool:
    """Is this the browser that the session is bound to? Hashes are compared: their timing tells nothing."""
    if browser is None or not secrets.is_one(browser):
        return False
    return found.session.browser_hash == secrets.hashed(found.region.keyring, "browser", browser)


def title(integration: Integration) -> str:
    return integration.provider.facts.title


def back(integration: Integration, session: Session, **more: str) -> str | None:
    """Where the platform wants its user back, with the session's id; None: nowhere, or no longer there."""
    if session.return_url is None or not returns_to(session.return_url, integration.return_urls):
        return None
    query = urlencode({"session": ids.show(ids.SESSION, session.id), **more})
    return session.return_url + ("&" if "?" in session.return_url else "?") + query


def count(integration: Integration, outcome: str) -> None:
    metrics.CONNECTS.labels(integration.name, outcome).inc()


def _closed(session: Session) -> Kind | None:
    """Why nobody can begin with this session any more; None: somebody can."""
    if session.state == "expired" or (session.over and session.state in store.OPEN):
        return "expired"
    return None if session.state in ("created", "opened") else "used"


def _asked(party: Party, session: Session, state: str, proof: Proof) -> Asked:
    profiles = wishes.next_consent(session.asked, party.facts)
    scopes, optional = parties.asked_of(session, profiles)
    return Asked(
        scopes=scopes, optional=optional, state=state, code_challenge=proof.challenge if party.facts.pkce else None,
        nonce=proof.nonce, again=session.reconnects,
    )  # fmt: skip


__all__ = ["Flow", "Found", "back", "count", "is_of", "title"]
