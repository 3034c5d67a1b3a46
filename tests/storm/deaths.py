"""The winner of a refresh dies at a given moment, while others wait for it; and what became of its token in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.processes import SILENT_S
from gateway.settings import Settings
from gateway.tokens.leases import LEASE_S
from gateway.tokens.refresh import WAIT_S
from tests.storm.crowd import Told
from tests.storm.fleet import Worker
from tests.storm.moments import Moment
from tests.storm.town import Account, Town

AT_ONCE = 6  # victims of one batch: each holds a dozen connections of the database …
CALLERS_AT_ONCE = 400  # … and as many callers of all of them are what this process can play
SPOOL_S = Settings.model_fields["spool_grace_s"].default


@dataclass
class Death:
    """Of one process, in the middle of the refresh of one account."""

    moment: Moment
    account: Account
    sent: bool  # the request had reached the provider
    kept: bool  # the new token set was written
    phase: str  # of the refresh that was left open
    spent_early: int = 0  # how often the refresh token had come to the provider before the grace was over
    told: Sequence[Told] = field(default=(), repr=False)
    # What became of it, looked at before time goes on for others: their hours would have it renewed ahead.
    grant: tuple[str, str | None, int] = ("", None, 0)  # state, reason, token version
    causes: Sequence[str] = ()
    spent: int = 0
    ended: str | None = None  # why its provider has ended it; None: it lives

    @property
    def unanswered(self) -> bool:
        """The cell that can be lost: the provider has acted, and what it said died with the process."""
        return self.sent and not self.kept

    def __str__(self) -> str:
        fate = "kept" if self.kept else "sent" if self.sent else f"{self.phase or 'nothing'} left"
        return f"{self.moment} {fate}"


async def census(town: Town, survivor: Worker) -> list[Moment]:
    """The moments of a refresh that nobody disturbs."""
    [watched] = await town.fleet.start(tells=True)
    [account] = await town.accounts(survivor, 1)
    [told] = await town.crowd.storm([watched.url], account.path, 1)
    assert told.good
    watched.listen()
    return watched.moments


def spread(moments: Sequence[Moment], every: int) -> list[int]:
    """Some of them: each `every`-th, those around the call of the provider, and the last. All, for 1."""
    calls = [m.number for m in moments if m.where.startswith("gateway/outbound/")]
    return sorted({*range(1, len(moments) + 1, every), calls[0] - 1, calls[0], calls[-1], calls[-1] + 1, len(moments)})


async def die(town: Town, survivors: Sequence[Worker], numbers: Sequence[int], callers: int) -> list[Death]:
    """A process dies at each of these moments, each in a refresh of its own; the deaths that came to pass."""
    deaths: list[Death] = []
    size = max(1, min(AT_ONCE, CALLERS_AT_ONCE // callers))
    for begin in range(0, len(numbers), size):
        deaths += await _batch(town, survivors, numbers[begin : begin + size], callers)
    return deaths


async def _batch(town: Town, survivors: Sequence[Worker], numbers: Sequence[int], callers: int) -> list[Death]:
    strict = town.provider.sandbox.rules.rotation == "strict"
    victims = await town.fleet.start_each([{"dies_at": number} for number in numbers])
    accounts = await town.accounts(survivors[0], len(numbers))
    waiting: dict[Account, asyncio.Task[list[Told]]] = {}
    deaths = [
        death
        for death in await asyncio.gather(*(
            _death(town, victim, survivors, account, callers, waiting)
            for victim, account in zip(victims, accounts, strict=True)
        ))
        if death is not None
    ]  # fmt: skip
    # Time goes by between two calls of a refresh, not in the middle of one: who can go on has gone on before.
    for death in deaths:
        if not death.phase:
            death.told = await waiting[death.account]
    await town.pass_s(max(LEASE_S, SILENT_S) + 1)
    others = [w.url for w in survivors]
    for death in deaths:
        if death.phase == "claimed" or not strict:
            death.told = await waiting[death.account]
        await town.crowd.storm(others, death.account.path, len(others), patient=False)  # who answers has looked by now
        death.spent_early = town.spent(death.account)
    await town.pass_s(SPOOL_S)
    for death in deaths:
        death.told = await waiting[death.account]
    for task in waiting.values():
        await task
    for death in deaths:
        death.grant, death.causes = await town.grant(death.account), await town.causes(death.account)
        death.spent, death.ended = town.spent(death.account), town.ended(death.account)
    return deaths


async def _death(
    town: Town, victim: Worker, survivors: Sequence[Worker], account: Account, callers: int,
    waiting: dict[Account, asyncio.Task[list[Told]]],
) -> Death | None:  # fmt: skip
    """Half of the callers ask the one that dies, the others the survivors, as soon as it has begun."""
    others, recorded = [w.url for w in survivors], asyncio.Event()
    first = asyncio.create_task(
        town.crowd.storm(others, account.path, callers - callers // 2, first=victim.url, cut_off=recorded)
    )
    dead = asyncio.create_task(victim.dead())
    while not (await town.phase(account) or first.done() or dead.done()):  # noqa: ASYNC110 - on a row of the database
        await asyncio.sleep(0.005)

    async def others_too() -> list[Told]:
        if dead.done():  # before it had the lease: now whoever comes first gets it
            await recorded.wait()
        return await town.crowd.storm(others, account.path, callers // 2)

    second = asyncio.create_task(others_too())
    waiting[account] = asyncio.create_task(_both(first, second))
    await asyncio.wait({dead, first}, return_when=asyncio.FIRST_COMPLETED)
    victim.kill()  # it has outlived its refresh
    await dead
    await town.settled()
    _, _, version = await town.grant(account)
    sent, phase = town.spent(account) > 0, await town.phase(account)
    recorded.set()
    if not victim.moments:
        return None
    [moment] = victim.moments
    return Death(moment, account, sent=sent, kept=version > 1, phase=phase)


async def _both(first: asyncio.Task[list[Told]], second: asyncio.Task[list[Told]]) -> list[Told]:
    return [*await first, *await second]


def waited_too_long(deaths: Sequence[Death]) -> list[float]:
    """First answers that took longer than a waiter is to wait."""
    return [told.first_s for death in deaths for told in death.told if told.first_s > WAIT_S + 5]
