"""What the provider sends a browser back with: checked, claimed once, exchanged, identified, compared, staged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl
from uuid import UUID

from gateway import exchange
from gateway.connect import accounts, leaving, parties, secrets, staging, store, wishes
from gateway.connect.accounts import Known
from gateway.connect.flow import Flow, Found, back, count, is_of, title
from gateway.connect.outcomes import Outcome, Redirect, Told
from gateway.connect.parties import Party
from gateway.connect.secrets import Proof
from gateway.connect.staging import Brought
from gateway.connect.store import Session
from gateway.connections import grants, telling
from gateway.connections import store as connections
from gateway.connections.telling import Because, Word
from gateway.database import Db
from gateway.errors import Unavailable
from gateway.vault.cipher import SealBroken
from providers.errors import Misconfigured, OddAnswer, ProviderError, Refused, is_plain
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

    @property
    def all(self) -> dict[str, str]:
        """Every parameter, as it came."""
        return {**self.more, "state": self.state, **({} if self.code is None else {"code": self.code})}


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
    if not secrets.is_one(state) or (code is not None and not 0 < len(code) <= LONGEST_CODE):
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
            party = parties.party(self._gateway, found.integration, found.session.parameters)
            theirs = _is_from(party, said.iss) and _is_signed(party, said)
        except ProviderError as error:
            return await self._flow.stopped(found, "misconfigured", error.code)
        if not theirs:
            count(found.integration, "refused")
            return Told(kind="refused", title=title(found.integration), session=found.session.id)
        proof = await self._claimed(found, said.state)
        if proof is None:  # the same answer a second time, at the same moment
            return Told(kind="refused", title=title(found.integration))
        if said.error is not None:
            return await self._not_given(found, party, said.error)
        if party.facts.awaits_approval and party.facts.awaits_approval.items() <= said.more.items():
            return await self._flow.stopped(found, "awaits_approval", None)
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
            region.database, state_hash=secrets.hashed(region.keyring, "state", state), browser_hash=session.browser_hash,
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
        if said.code is None:
            raise OddAnswer("no_code")
        sets = await exchange.exchange(
            party.http, party.provider, party.facts, party.app, Asked(scopes=scopes, optional=optional),
            said.code, proof.verifier if party.facts.pkce else None,
        )  # fmt: skip
        party = replace(party, app=replace(party.app, callback=said.more, nonce=proof.nonce))
        identity = await _identified(party, sets)
        known = accounts.hashed(self._gateway.control_keyring, session.integration_id, identity)
        keyring = self._gateway.control_keyring

        def marks(tokens: TokenSet) -> tuple[UUID, ...]:
            return exchange.marks(keyring, found.integration, tokens)

        gathered = await _gathered(party, profiles, sets, identity, known, marks)
        return await self._kept(found, profiles, gathered, known)

    async def _kept(self, found: Found, profiles: tuple[str, ...], gathered: list[Brought], known: Known) -> Outcome:
        """In one transaction: whose account it is, what is staged, and what comes next."""
        session, region = found.session, found.region
        left = session.asked[len(profiles) :]
        missing = () if left else await _missing(found, gathered)
        sealed = await staging.seal(region, session, gathered)
        code = secrets.fresh()
        async with region.database.transaction() as tx:
            now = await store.lock(tx, session.id)
            if now is None or now.state != "opened" or now.asked != session.asked:
                return Told(kind="refused", title=title(found.integration))
            fits = await self._fits(tx, now, known)
            if fits:
                await staging.put(tx, session, sealed)
                await store.advance(tx, session.id, left, known.subject)
                if not left:
                    await _returned(tx, found, "scopes_missing" if missing else "connected", code)
            else:
                await leaving.brought(tx, self._gateway, region, session, gathered, known.subject)
                await self._say_wrong(tx, now)  # last: it takes the log's lock
        if not fits:
            return await self._flow.stopped(found, "wrong_account", None)
        if left:
            return await self._flow.next(found, replace(session, asked=left))
        count(found.integration, "consented")
        return _end(found, code, missing)

    async def _fits(self, tx: Db, session: Session, known: Known) -> bool:
        """Is it the account that this session is about?"""
        if session.subject_hash is not None and session.subject_hash != known.subject:
            return False  # two consents of one session, of two accounts
        if not session.reconnects or session.allow_account_switch:
            return True
        connection = await connections.get(tx, session.connection_id)
        held = await connections.accounts_of(tx, connection.id)
        return accounts.is_same(connection, held, known.subject, known.accounts)

    async def _say_wrong(self, tx: Db, session: Session) -> None:
        """On the stream, where there is a connection to say it of: somebody may be trying something."""
        if session.reconnects and await grants.lock(tx, session.connection_id) is not None:
            word = Word(Because(cause="connect", source="consent"), "wrong_account")
            await telling.settle(tx, {session.connection_id: word}, self._gateway.new_id)


def _is_from(party: Party, iss: str | None) -> bool:
    """RFC 9207 section 2.4: an issuer that is named must be the right one, and one that always names itself must.

    Raises: Misconfigured, nobody can tell which is the right one.
    """
    if iss is None:
        return not party.facts.issuer_always
    return party.issuer is None or iss == party.issuer


def _is_signed(party: Party, said: Returned) -> bool:
    """Where a provider signs what it sends the browser back with, it must have signed this.    Raises: Misconfigured."""
    if party.provider.check_callback is None:
        return True
    try:
        party.provider.check_callback(said.all, party.app)
    except Refused:
        return False
    return True


async def _identified(party: Party, sets: Mapping[str, TokenSet]) -> Identity:
    identify = party.provider.identify
    assert identify is not None, "whoever has an authorize_url has identify(): the registry sees to it"
    return await identify(party.http, party.app, sets)


async def _gathered(
    party: Party, profiles: tuple[str, ...], sets: Mapping[str, TokenSet], identity: Identity, known: Known,
    marks: Callable[[TokenSet], tuple[UUID, ...]],
) -> list[Brought]:  # fmt: skip
    """The token set of each access profile that was asked for; some are minted for the account instead.

    Raises: ProviderError (OddAnswer: the answer leaves one out).
    """
    gathered = []
    for profile in profiles:
        if profile in party.facts.minted:
            assert party.provider.mint is not None
            minted = await party.provider.mint(party.http, party.app, identity.accounts)
            gathered.append(staging.brought(profile, minted, known.accounts, known.reach, kind="installation"))
        elif profile in sets:
            expected = party.facts.refresh_expected
            one = staging.brought(
                profile,
                sets[profile],
                known.accounts,
                known.reach,
                marks=marks(sets[profile]),
                refresh_expected=expected,
                refresh_life_s=party.facts.refresh_life_s,
            )
            gathered.append(one)
        else:
            raise OddAnswer("profile_left_out")
    return gathered


async def _missing(found: Found, gathered: list[Brought]) -> tuple[str, ...]:
    """Required scopes that all consents of the session together left out.    Raises: Unavailable."""
    session, region = found.session, found.region
    here = {one.access_profile for one in gathered}
    earlier = [one for one in await staging.opened(region.database, region, session) if one.access_profile not in here]
    before = {grant.access_profile: grant.ledger for grant in await grants.of(region.database, [session.connection_id])}
    missing: set[str] = set()
    for one in (*earlier, *gathered):
        if one.access_profile in session.profiles:
            wish = session.profiles[one.access_profile]
            missing.update(wish.ledger(one.scopes, before.get(one.access_profile)).to_mend)
    return tuple(sorted(missing))


async def _returned(tx: Db, found: Found, outcome: str, code: str) -> None:
    session = found.session
    if not session.reconnects:
        new = connections.NewConnection(
            id=session.connection_id, tenant_id=session.tenant_id, integration_id=session.integration_id,
            external_id=None, end_user_id=session.end_user_id, labels=session.labels, accounts=(),
        )  # fmt: skip
        await connections.expect(tx, new)
    await store.returned(tx, session.id, outcome, secrets.hashed(found.region.keyring, "code", code), COMPLETE_S)


def _end(found: Found, code: str, missing: tuple[str, ...]) -> Outcome:
    """All consents are given: the code goes to the platform, by the browser that saw them."""
    where = back(found.integration, found.session, code=code)
    if missing:
        shown = None if where is not None else code
        return Told(kind="scopes_missing", title=title(found.integration), back=where, code=shown, missing=missing)
    if where is not None:
        return Redirect(where)
    return Told(kind="connected", title=title(found.integration), code=code)
