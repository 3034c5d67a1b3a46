"""The end of a session, by the platform's backend: with the one-time code, tokens go from staging to their grants.

Only this makes a consent count. Whoever was lured into consenting by somebody else's link (PROTOCOLS 7) brings the code
to the platform's own return URL in his own browser, where the platform sees who is signed in.

Sealing for the new place is done before the transaction, since a key backend may be far away; the transaction finds the
generations as they were then, or all is done once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from gateway import ids
from gateway.connect import accounts, leaving, secrets, staging, store
from gateway.connect.flow import count
from gateway.connect.staging import Brought
from gateway.connect.store import Session
from gateway.connections import grants, rotations, transitions
from gateway.connections import store as connections
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.grants import Grant, NewTokens
from gateway.connections.moves import Move
from gateway.connections.rotations import Came
from gateway.connections.scopes import Ledger
from gateway.connections.states import ISSUED, State
from gateway.connections.store import Connection
from gateway.connections.telling import Because, Word
from gateway.database import Db
from gateway.errors import Conflict, NotFound, SessionOver, Unavailable, WrongCode
from gateway.regions import Region
from gateway.service import Gateway
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import Place

MOST_GUESSES = 5  # at a code of 256 bits: whoever is wrong so often does not have it
TRIES = 3
CONSENT = Because(cause="connect", source="consent")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """A token set, sealed for the generation and version that it will have; `new` None: the former one stays."""

    brought: Brought
    ledger: Ledger
    before: Grant | None
    new: NewTokens | None

    @property
    def generation(self) -> int:
        return 1 if self.before is None else self.before.generation + 1

    @property
    def version(self) -> int:
        return 1 if self.before is None else self.before.token_version + 1


class Completion:
    """Completes sessions, for one process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def complete(self, region: Region, session_id: UUID, code: str, new_id: Callable[[], UUID]) -> Session:
        """The session, completed now or before with this very code.

        Raises: NotFound, SessionOver (it is not waiting for its code, or no more), WrongCode, Conflict, Unavailable.
        """
        session = await self._checked(region, session_id, code)
        if session.state == "completed":
            return session
        for _ in range(TRIES):
            placed, paths = await self._placed(region, session)
            await self._hint(region, session, placed)
            try:
                async with (
                    region.database.transaction() as tx
                ):  # if its answer is lost, it may have happened all the same
                    done = await self._move(tx, session, placed, new_id)
            except asyncpg.UniqueViolationError:  # a twin came at the same moment: the next look sees it
                done = None
            if done is not None:
                return done
            await region.tokens.discard(paths)  # never named by a row
        raise Conflict("The connection is being changed by others at this moment. Try again.")

    async def _checked(self, region: Region, session_id: UUID, code: str) -> Session:
        """The session, if this is its code.    Raises: NotFound, SessionOver, WrongCode."""
        async with region.database.transaction() as tx:
            session = await store.lock(tx, session_id)
            if session is None:
                raise NotFound("There is no such session.")
            if session.state not in ("returned", "completed") or (session.state == "returned" and session.over):
                raise _over(session)
            right = secrets.is_one(code) and session.code_hash == secrets.hashed(region.keyring, "code", code)
            if not right and session.state == "returned" and await store.guessed(tx, session.id) >= MOST_GUESSES:
                await leaving.staged(tx, self._gateway, region, session)
                await store.fail(tx, session, "wrong_code", None)
        if not right:
            raise WrongCode("That is not the code that this session's return URL brought.")
        return session

    async def _placed(self, region: Region, session: Session) -> tuple[list[Placed], list[str | None]]:
        """What is staged, sealed for where it goes.    Raises: Unavailable."""
        before = {grant.access_profile: grant for grant in await grants.of(region.database, [session.connection_id])}
        placed = []
        try:
            brought = await staging.opened(region.database, region, session)
            same = await _is_same(region.database, session, brought)
            for one in brought:
                found = before.get(one.access_profile)
                ledger = session.profiles[one.access_profile].ledger(
                    one.scopes, None if found is None else found.ledger
                )
                works = same and found is not None and found.state in ISSUED
                kept = session.reconnects and works and ledger.reason is not None
                aimed = Placed(one, ledger, found, None)
                placed.append(aimed if kept else await _sealed(region, session, aimed))
        except SealBroken as error:
            raise Unavailable("what was staged does not open") from error
        return placed, [one.new.sealed.kv_path for one in placed if one.new is not None]

    async def _hint(self, region: Region, session: Session, placed: Sequence[Placed]) -> None:
        """Control hears first where deliveries of these accounts go, and who may share what a revocation ends."""
        told = [
            hash for one in placed
            for hash in (*one.brought.accounts, *one.brought.marks, one.brought.reach) if hash is not None
        ]  # fmt: skip
        await connections.hint(self._gateway.control, session.integration_id, told, region.name)

    async def _move(
        self, tx: Db, session: Session, placed: Sequence[Placed], new_id: Callable[[], UUID]
    ) -> Session | None:
        """All of it, or None: the grants are no longer those that the tokens were sealed for."""
        now = await store.lock(tx, session.id)
        if now is None or now.state not in ("returned", "completed"):
            raise _over(now)
        if now.state == "completed":  # another call with the same code was first
            return now
        assert now.subject_hash is not None
        if await grants.lock(tx, session.connection_id) in (None, "closed"):
            raise Conflict("The connection was closed meanwhile.")
        connection = await connections.get(tx, session.connection_id)
        same = await _is_same(tx, now, [one.brought for one in placed])
        held = {grant.access_profile: grant for grant in await grants.of(tx, [connection.id])}
        if any(_moved(one.before, held.get(one.brought.access_profile)) for one in placed):
            return None
        if not same and any(one.new is None for one in placed):
            return None  # what seemed to be kept is another account's by now
        if not same and not session.allow_account_switch:
            raise Conflict("The connection belongs to another account by now.")
        await _refuse_twin(tx, session, connection)
        names = _accounts([one.brought for one in placed])
        await connections.know(
            tx, connection, now.subject_hash, names, external_id=session.external_id, switched=not same
        )
        outcome = "scopes_missing" if any(one.ledger.reason for one in placed) else "connected"
        await store.complete(tx, session.id, outcome)
        done = await store.find(tx, session.id)
        self._count(done)
        left = [] if same else [grant for name, grant in held.items() if name not in session.profiles]
        keyring = self._gateway.control_keyring
        moves = [_consented(tx, keyring, session, one, one.new) for one in placed if one.new is not None]
        moves += [_left(tx, grant) for grant in left]
        narrow = (
            {} if moves else {connection.id: Word(CONSENT, "scopes_missing")}
        )  # too narrow: the former grant goes on
        await transitions.apply(
            tx,
            moves,
            new_id,
            words=narrow,
            write=lambda: connections.mark(tx, [connection.id]),
            looked_back=bool(moves),
        )
        return done

    def _count(self, session: Session | None) -> None:
        assert session is not None
        integration = self._gateway.catalog.integration_by_id(session.integration_id)
        if integration is not None and session.outcome is not None:
            count(integration, session.outcome)
            log.info("connect.completed", integration=integration.name, outcome=session.outcome)


def _over(session: Session | None) -> SessionOver:
    """How it stands, which is not as one that waits for its code."""
    if session is None:
        return SessionOver("The session is gone.", state="expired", outcome=None)
    state = "expired" if session.over and session.state in store.OPEN else session.state
    return SessionOver("The session is not waiting for a code.", state=state, outcome=session.outcome)


async def _sealed(region: Region, session: Session, aimed: Placed) -> Placed:
    one = aimed.brought
    place = Place(
        region.name, session.tenant_id, session.connection_id, one.access_profile, aimed.generation, aimed.version
    )
    sealed = await region.tokens.seal(place, one.access_token, one.refresh_token)
    new = NewTokens(
        sealed=sealed,
        token_type=one.token_type,
        expires_in_s=one.expires_in_s,
        refresh_expires_in_s=one.refresh_expires_in_s,
    )
    return Placed(one, aimed.ledger, aimed.before, new)


async def _refuse_twin(tx: Db, session: Session, connection: Connection) -> None:
    """Two links with one external id: the first to be completed has it.    Raises: Conflict."""
    if session.external_id is None or connection.external_id == session.external_id:
        return
    new = connections.NewConnection(
        id=connection.id, tenant_id=connection.tenant_id, integration_id=connection.integration_id,
        external_id=session.external_id, end_user_id=None, labels={}, accounts=(),
    )  # fmt: skip
    if (twin := await connections.twin(tx, new)) is not None:
        told = ids.show(ids.CONNECTION, twin)
        raise Conflict("Another connection has got that external_id meanwhile: reconnect that one.", connection=told)


async def _is_same(db: Db, session: Session, brought: Sequence[Brought]) -> bool:
    """Is it the account that the connection has had so far (if it has had one)?"""
    assert session.subject_hash is not None
    connection = await connections.find(db, session.connection_id)
    if connection is None:
        return True
    held = await connections.accounts_of(db, connection.id)
    return accounts.is_same(connection, held, session.subject_hash, _accounts(brought))


def _moved(before: Grant | None, now: Grant | None) -> bool:
    """Has somebody else been at the grant since?"""
    if before is None or now is None:
        return before is not now
    return (before.generation, before.token_version, before.state) != (now.generation, now.token_version, now.state)


def _accounts(brought: Sequence[Brought]) -> tuple[UUID, ...]:
    return tuple(dict.fromkeys(account for one in brought for account in one.accounts))


def _consented(tx: Db, keyring: Keyring, session: Session, one: Placed, new: NewTokens) -> Move:
    """The new generation's grant and tokens."""
    whole, profile = one.ledger.reason is None, one.brought.access_profile
    came = Came(
        connection=session.connection_id, access_profile=profile, generation=one.generation, token_version=one.version,
        source="consent",
        fingerprint=rotations.fingerprint(keyring, session.integration_id, one.brought.refresh_token),
    )  # fmt: skip

    async def save(state: State, reason: str | None) -> None:
        await grants.put(
            tx, session.connection_id, profile, state=state, reason=reason, generation=one.generation,
            token_version=one.version, ledger=one.ledger, parameters={**session.parameters, **one.brought.parameters},
            reach_hash=one.brought.reach, kind=one.brought.kind, marks=one.brought.marks, age_s=one.brought.age_s,
        )  # fmt: skip
        await grants.put_tokens(tx, session.connection_id, profile, session.tenant_id, one.generation, one.version, new)
        await rotations.record(tx, [came])

    return Move(
        connection=session.connection_id, access_profile=profile, signal="authorized" if whole else "narrowed",
        because=CONSENT, fence=NAMED_FOR_EVER, say="authorized", save=save, made=(one.generation, one.version),
        reason=one.ledger.reason or (None if one.brought.lasts else "no_refresh_token"),
    )  # fmt: skip


def _left(tx: Db, grant: Grant) -> Move:
    """A grant of the account that was left: its tokens are no longer this connection's, nor what a refresh still brings."""

    async def save(state: State, reason: str | None) -> None:
        await grants.leave(tx, grant)

    return Move(
        connection=grant.connection_id, access_profile=grant.access_profile, signal="left", because=CONSENT,
        fence=NAMED_FOR_EVER, reason="account_switched", save=save, made=(grant.generation + 1, grant.token_version),
    )  # fmt: skip
