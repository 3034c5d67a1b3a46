"""Bringing connections in, many at a time. The same line again changes nothing, so whatever broke off is run again.

A line is about the open connection with its (tenant, integration, external id). Its token sets replace those that are
there only where nobody here may have refreshed them: while a grant is held, or when it needs a new consent anyway. A
grant that is refreshed here is left alone, and a different token set for it is refused: an old file must not put back
refresh tokens that have been superseded, since sending one can end the whole family at the provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from gateway.adoption import judging, store
from gateway.adoption.judging import Ready, ReadyGrant
from gateway.adoption.lines import Line, LineRefused, Outcome
from gateway.adoption.store import Existing, Placed
from gateway.connections import reuse, rotations, transitions
from gateway.connections import store as connections
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.moves import Move
from gateway.connections.states import State
from gateway.connections.telling import Because, Word
from gateway.database import Db
from gateway.errors import NotFound
from gateway.regions import Region
from gateway.service import Gateway
from gateway.stream.append import NewEvent
from gateway.tenants import regions_of
from gateway.vault.tokens import Place, Sealed

NOW = "SELECT gateway.now()"
CHUNK = 200  # lines in one transaction
TRIES = 3
DEAD = frozenset({"pending", "reauth_required", "revoked", "closed"})  # a new consent, or these tokens, are the way on


IMPORT = Because(cause="import", source="import")


@dataclass(frozen=True, slots=True)
class _Aimed:
    """A grant with its token set, sealed for its place."""

    place: Place
    grant: ReadyGrant
    sealed: Sealed
    held: bool


class _Interfered(Exception):
    """Another writer made one of these connections at the same moment."""


async def bring_in(
    gateway: Gateway,
    lines: Sequence[Line],
    *,
    hold: bool,
    unrefreshable: bool,
    dry_run: bool,
    new_id: Callable[[], UUID],
) -> list[Outcome]:
    """What became of each line, in order; with `dry_run` what would. Each line is done whole or not at all.

    Raises: Unavailable; lines before may be done then, and running them again finds them so.
    """
    outcomes: list[Outcome | None] = [None] * len(lines)
    homes = await regions_of(gateway.control, {line.tenant for line in lines})
    times = {region.name: await region.database.fetchval(NOW) for region in gateway.regions}
    waiting: dict[str, list[tuple[int, Ready]]] = {}
    for place, line in enumerate(lines):
        try:
            region = _region(gateway, homes, line)
            waiting.setdefault(region.name, []).append(
                (place, _judged(gateway, line, times[region.name], unrefreshable))
            )
        except LineRefused as refused:
            outcomes[place] = Outcome(result="refused", reason=refused.reason, detail=refused.detail)
    for name, ready in waiting.items():
        work = _Work(gateway, gateway.regions.get(name), times[name], hold, dry_run, new_id)
        for chunk in _chunks(ready):
            found = await work.chunk([line for _, line in chunk])
            for (place, _), outcome in zip(chunk, found, strict=True):
                outcomes[place] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _region(gateway: Gateway, homes: Mapping[str, str], line: Line) -> Region:
    if line.tenant not in homes:
        raise LineRefused("unknown_tenant", "there is no such tenant: make it first")
    try:
        return gateway.regions.get(homes[line.tenant])
    except NotFound:
        raise LineRefused("region_elsewhere", "this process does not serve the tenant's region") from None


def _judged(gateway: Gateway, line: Line, now: datetime, unrefreshable: bool) -> Ready:
    integration = gateway.catalog.integration(line.integration)
    if integration is None:
        raise LineRefused("unknown_integration", "there is no such integration")
    if integration.trouble is not None:
        raise LineRefused("integration_unusable", "the integration cannot be used: see `posthouse doctor`")
    return judging.ready(gateway.control_keyring, integration, line, now, unrefreshable=unrefreshable)


def _chunks(ready: Sequence[tuple[int, Ready]]) -> list[list[tuple[int, Ready]]]:
    """In order; none names a connection twice, so that a second line meets what the first has made."""
    chunks: list[list[tuple[int, Ready]]] = []
    seen: set[tuple[str, UUID, str]] = set()
    for place, line in ready:
        if not chunks or len(chunks[-1]) == CHUNK or line.key in seen:
            chunks.append([])
            seen = set()
        chunks[-1].append((place, line))
        seen.add(line.key)
    return chunks


class _Work:
    """One import's work in one region."""

    def __init__(
        self, gateway: Gateway, region: Region, now: datetime, hold: bool, dry_run: bool, new_id: Callable[[], UUID]
    ) -> None:
        self._gateway, self._region, self._now = gateway, region, now
        self._hold, self._dry_run, self._new_id = hold, dry_run, new_id

    async def chunk(self, lines: Sequence[Ready]) -> list[Outcome]:
        """Lines of one transaction. One that cannot be stored leaves the others' way free."""
        if not self._dry_run:
            await self._hint(lines)
            await self._region.tokens.keys.for_sealing_all({line.line.tenant for line in lines})
        for _ in range(TRIES):
            try:
                async with self._region.database.transaction() as tx:
                    return await self._chunk(tx, lines)
            except (_Interfered, asyncpg.DeadlockDetectedError):
                continue
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
                if len(lines) == 1:
                    return [Outcome(result="refused", reason="unstorable", detail="the database refuses a value of it")]
                return [outcome for line in lines for outcome in await self.chunk([line])]
        return [Outcome(result="refused", reason="interfered", detail="somebody else is changing it: try again")] * len(
            lines
        )

    async def _hint(self, lines: Sequence[Ready]) -> None:
        """Control says first where deliveries of these accounts go, and where what a revocation reaches is shared."""
        hashes: dict[UUID, set[UUID]] = {}
        for line in lines:
            of = hashes.setdefault(line.integration_id, set())
            of.update(line.accounts or ())
            of.update(grant.reach for grant in line.grants.values() if grant.reach is not None)
        for integration_id, accounts in hashes.items():
            await connections.hint(self._gateway.control, integration_id, sorted(accounts), self._region.name)

    async def _chunk(self, tx: Db, lines: Sequence[Ready]) -> list[Outcome]:
        found = await store.locked(tx, lines)
        outcomes: list[Outcome] = []
        new: list[tuple[UUID, Ready]] = []
        changed: list[tuple[UUID, Ready]] = []
        placed: list[_Aimed] = []
        for line in lines:
            there = found.get(line.key)
            try:
                profiles = list(line.grants) if there is None else _replaced(there, line)
            except LineRefused as refused:
                outcomes.append(
                    Outcome(result="refused", connection_id=there.id, reason=refused.reason, detail=refused.detail)
                    if there is not None
                    else Outcome(result="refused", reason=refused.reason)
                )
                continue
            id = self._new_id() if there is None else there.id
            if there is None:
                new.append((id, line))
                outcomes.append(_new(line, None if self._dry_run else id))
            elif profiles or _says_more(there, line):
                changed.append((id, line))
                outcomes.append(Outcome(result="updated", connection_id=id, state=there.state, reason=there.reason))
            else:
                outcomes.append(Outcome(result="unchanged", connection_id=id, state=there.state, reason=there.reason))
            if not self._dry_run:
                placed += [await self._placed(id, line, name, there) for name in profiles]
        if self._dry_run:
            return outcomes
        reused = await self._reused(tx, lines, found)
        if await store.insert(tx, new) != len(new):
            raise _Interfered
        await store.update(tx, changed)
        await store.put_accounts(tx, [*new, *changed])
        touched = [id for id, _ in (*new, *changed)]
        await self._stand(tx, touched, placed, reused)
        after = {one.id: one for one in await connections.of(tx, touched)}
        return [_settled(outcome, after) for outcome in outcomes]

    async def _reused(
        self, tx: Db, lines: Sequence[Ready], found: Mapping[tuple[str, UUID, str], Existing]
    ) -> list[NewEvent]:  # fmt: skip
        """What is to be said of refresh tokens in these lines that others have replaced here, be the line refused or not.

        The event is of the connection that had it, and names no other: they may be different tenants'."""
        brought = {print for line in lines for print in _news(found.get(line.key), line)}
        events = []
        for old in await rotations.superseded(tx, brought):
            seen = await reuse.seen(tx, old.connection, old.access_profile, old.token_version, "superseded_import")
            if seen is not None:
                whose = await connections.get(tx, old.connection)
                events.append(reuse.event(whose, seen, self._new_id()))
        return events

    async def _stand(
        self, tx: Db, touched: Sequence[UUID], placed: Sequence[_Aimed], more: Sequence[NewEvent]
    ) -> None:  # fmt: skip
        """Each token set is a signal to the machine; grants are written with the states that it gives them."""
        standing: list[Placed] = []

        def move(aimed: _Aimed) -> Move:
            async def save(state: State, reason: str | None) -> None:
                standing.append(Placed(aimed.place, aimed.grant, aimed.sealed, aimed.held, state))

            place = aimed.place
            return Move(
                connection=place.connection, access_profile=place.profile, signal=aimed.grant.signal, because=IMPORT,
                fence=NAMED_FOR_EVER, reason=aimed.grant.reason, save=save, made=(place.generation, place.version),
            )  # fmt: skip

        async def write() -> None:
            await store.put_grants(tx, standing, self._now)
            await connections.mark(tx, {one.place.connection for one in standing if one.grant.marks})

        words = {id: Word(IMPORT) for id in touched}
        moves = [move(aimed) for aimed in placed]
        await transitions.apply(tx, moves, self._new_id, words=words, write=write, more=more, looked_back=True)

    async def _placed(self, id: UUID, line: Ready, name: str, there: Existing | None) -> _Aimed:
        before = None if there is None else there.grants.get(name)
        generation, version = (1, 1) if before is None else (before.generation + 1, before.token_version + 1)
        place = Place(self._region.name, line.line.tenant, id, name, generation, version)
        grant = line.grants[name]
        tokens = grant.tokens
        sealed = await self._region.tokens.seal(place, tokens.access_token or "", tokens.refresh_token)
        held = self._hold or (before is not None and before.held)  # only `activate` ends a hold
        return _Aimed(place, grant, sealed, held)


def _replaced(there: Existing, line: Ready) -> list[str]:
    """Which grants the line's token sets replace (or make).    Raises: LineRefused, one of them is refreshed here."""
    replaced = []
    for name, grant in line.grants.items():
        held = there.grants.get(name)
        if held is not None and held.source_mac == grant.mac:
            continue
        if held is not None and held.has_tokens and not held.held and held.state not in DEAD:
            raise LineRefused(
                "in_use", "it has other tokens here, which are refreshed here: hold it first, or have it reconnected"
            )
        replaced.append(name)
    return replaced


def _news(there: Existing | None, line: Ready) -> list[UUID]:
    """Fingerprints of the line's token sets but those that an import has brought already: a file may be run again."""
    held = {} if there is None else there.grants
    return [
        grant.fingerprint for name, grant in line.grants.items()
        if grant.fingerprint is not None and (name not in held or held[name].source_mac != grant.mac)
    ]  # fmt: skip


def _says_more(there: Existing, line: Ready) -> bool:
    """Whether the line says something new beside its token sets."""
    return (
        there.end_user_id != line.line.end_user_id
        or there.labels != dict(line.line.labels)
        or (line.accounts is not None and there.accounts != line.accounts)
        or (line.subject is not None and there.subject_hash != line.subject)
    )


def _new(line: Ready, id: UUID | None) -> Outcome:
    reason = next((grant.reason for grant in line.grants.values() if grant.reason is not None), None)
    return Outcome(
        result="imported", connection_id=id, state="active" if reason is None else "reauth_required", reason=reason
    )


def _settled(outcome: Outcome, after: Mapping[UUID, connections.Connection]) -> Outcome:
    if outcome.connection_id is None or outcome.connection_id not in after:
        return outcome
    now = after[outcome.connection_id]
    return Outcome(result=outcome.result, connection_id=now.id, state=now.state, reason=now.reason)
