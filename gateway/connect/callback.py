"""What the provider sends a browser back with: checked, claimed once, exchanged, identified, compared, staged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl
from uuid import UUID

from gateway import exchange, ids
from gateway.connect import accounts, parties, staging, store, tokens, wishes
from gateway.connect.accounts import Known
from gateway.connect.flow import Flow, Found, back, count, is_of, title
from gateway.connect.outcomes import Kind, Outcome, Redirect, Told
from gateway.connect.parties import Party
from gateway.connect.staging import Brought
from gateway.connect.store import Session
from gateway.connect.tokens import Proof
from gateway.connections import grants
from gateway.connections import store as connections
from gateway.connections.scopes import Ledger
from gateway.database import Db
from gateway.errors import Unavailable
from gateway.vault.cipher import SealBroken
from providers.errors import Misconfigured, OddAnswer, ProviderError, is_plain
from providers.oauth import Asked, Identity, TokenSet

COMPLETE_S = 600.0  # how long the one-time code lives
LONGEST_QUERY = 16 * 1024
ONCE = ("state", "code", "error", "iss")  # RFC 6749 section 3.1: parameters must not come twice
LONGEST_CODE = 8 * 1024


@dataclass(frozen=True, slots=True)
class Returned:
    """The parameters of a callback. Its repr shows none."""

    state: str = field(repr=False)
    code: str | None = field(repr=False)
    error: str | None = field(repr=False)
    iss: str | None = field(repr=False)
    more: Mapping[str, str] = field(repr=False)  # all but code and state: some providers say things there


def read(query: bytes) -> Returned | None:
    """None: it is not the answer to any authorization request."""
    if len(query) > LONGEST_QUERY:
        return None
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        return None
    said = dict(pairs)
    if len(said) != len(pairs) and any(sum(name == key for key, _ in pairs) > 1 for name in ONCE):
        return None
    state, code, error = said.pop("state", ""), said.pop("code", None), said.get("error")
    if not tokens.is_one(state) or (code is not None and not 0 < len(code) <= LONGEST_CODE):
        return None
    return Returned(state, code, error, said.get("iss"), said)


class Callback:
    """The redirect URI, for one process."""

    def __init__(self, flow: Flow) -> None:
        self._flow, self._gateway = flow, flow.gateway

    async def take(self, integration_name: str, query: bytes, browser: str | None) -> Outcome:
        """One request to `/oauth/callback/{integration_name}`."""
        said = read(query)
        found = None if said is None else await self._flow.by_state(said.state)
        if said is None or found is None:  # never ours, or taken already
            integration = self._gateway.catalog.integration(integration_name)
            if integration is not None:
                count(integration, "refused")
            return Told(kind="refused")
        if found.integration.name != integration_name:  # a mix-up: this answer is another server's (RFC 9700, 4.4)
            count(found.integration, "refused")
            return Told(kind="refused")
        if found.session.over:
            return Told(kind="expired", title=title(found.integration), back=back(found.integration, found.session))
        if not is_of(found, browser):
            count(found.integration, "refused")
            return Told(kind="other_browser", title=title(found.integration))
        return await self._of_this_browser(found, said)

    async def _of_this_browser(self, found: Found, said: Returned) -> Outcome:
        try:
            party = await parties.party(self._gateway, found.integration, found.session.parameters)
        except ProviderError as error:
            return await self._flow.stopped(found, "misconfigured", error.code)
        if not _is_from(party, said.iss):
            count(found.integration, "refused")
            return Told(kind="refused", title=title(found.integration), session=found.session.id)
        proof = await self._claimed(found, said.state)
        if proof is None:  # the same answer a second time, at the same moment
            return Told(kind="refused", title=title(found.integration))
        if said.error is not None:
            return await self._not_given(found, party, said.error)
        try:
            return await self._given(found, party, said, proof)
        except Misconfigured as error:
            return await self._flow.stopped(found, "misconfigured", error.code)
        except ProviderError as error:
            return await self._flow.stopped(found, "provider_error", error.code)

    async def _claimed(self, found: Found, state: str) -> Proof | None:
        region, session = found.region, found.session
        assert session.browser_hash is not None
        sealed = await store.claim(
            region.database, state_hash=tokens.hashed(region.keyring, "state", state), browser_hash=session.browser_hash,
            integration_id=session.integration_id,
        )  # fmt: skip
        try:
            return None if sealed is None else Proof.opened(region.keyring, region.name, session.id, sealed)
        except SealBroken as error:
            raise Unavailable("the keyring does not open this step") from error

    async def _not_given(self, found: Found, party: Party, error: str) -> Outcome:
        """RFC 6749 section 4.1.2.1."""
        if error == "access_denied":
            return await self._flow.stopped(found, "denied", None)
        ours = error in party.facts.configuration
        code = error if is_plain(error) else "odd_error"
        return await self._flow.stopped(found, "misconfigured" if ours else "provider_error", code)

    async def _given(self, found: Found, party: Party, said: Returned, proof: Proof) -> Outcome:
        """Exchange, identify, compare, stage.    Raises: ProviderError, Unavailable."""
        session = found.session
        profiles = wishes.next_consent(session.asked, party.facts)
        scopes, optional = parties.asked_of(session, profiles)
        oidc = any("openid" in of for of in scopes.values())
        nonce = proof.nonce if oidc else None
        if said.code is None:
            raise OddAnswer("no_code")
        sets = await exchange.exchange(
            party.http, party.provider, party.facts, party.app, Asked(scopes=scopes, optional=optional, nonce=nonce),
            said.code, proof.verifier if party.facts.pkce else None,
        )  # fmt: skip
        app = replace(party.app, callback=said.more, nonce=nonce)
        party = replace(party, app=app)
        identity = await _identified(party, sets)
        known = accounts.hashed(self._gateway.control_keyring, session.integration_id, identity)
        gathered = await _gathered(party, profiles, sets, identity, known)
        return await self._kept(found, profiles, gathered, known)

    async def _kept(
        self, found: Found, profiles: tuple[str, ...], gathered: list[Brought], known: Known
    ) -> Outcome:
        """In one transaction: whose account, what is missing, what is staged, and what comes next."""
        session, region = found.session, found.region
        sealed = await staging.seal(region, session, gathered)
        left = session.asked[len(profiles) :]
        code = tokens.fresh()
        async with region.database.transaction() as tx:
            now = await store.lock(tx, session.id)
            if now is None or now.state != "opened" or now.asked != session.asked:
                return Told(kind="refused", title=title(found.integration))
            if not await self._is_the_account(tx, session, known):
                await connections.lock_and_say_wrong_account(tx, session, self._new_id())
                wrong = True
            else:
                wrong = False
                await staging.put(tx, session, sealed)
                await store.advance(tx, session.id, left, known.subject)
                missing = () if left else await self._missing(tx, found, gathered)
                if not left:
                    await store.returned(
                        tx, session.id, "scopes_missing" if missing else "connected",
                        tokens.hashed(region.keyring, "code", code), COMPLETE_S,
                    )  # fmt: skip
        if wrong:
            return await self._flow.stopped(found, "wrong_account", None)
        if left:
            return await self._flow.next(found, replace(session, asked=left))
        count(found.integration, "consented")
        return _end(found, code, missing)

    def _new_id(self) -> UUID:
        return ids.uuid7(self._gateway.clock.now())
