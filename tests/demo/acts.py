"""The order of events. A later issue writes its act as one more function, puts it into ACTS, and its checks into the play.

An act leaves what the next ones need in `Play`, and raises `Broken` where it makes no sense to go on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from gateway.client import Client
from tests.demo.accounts import TOKEN_LIFE_S, Accounts
from tests.demo.cast import TENANTS, Player, players
from tests.demo.connecting import introduced
from tests.demo.ledger import Ledger
from tests.demo.reckoning import Check, checks, rows, unseen, withstood
from tests.demo.renewing import renewed, stormed
from tests.demo.revoking import repaired, revoked
from tests.demo.screen import Screen
from tests.demo.sending import Post
from tests.demo.stage import Broken, Stage
from tests.demo.watching import Watcher, marker, read_all

PATIENCE_S = 30.0
WITHIN_S = 90.0  # all of it
MANY = 8  # requests under way at once, when the gateway is killed


@dataclass
class Play:
    """What the acts share."""

    stage: Stage
    screen: Screen
    deliveries: int  # of each provider
    chance: random.Random
    players: list[Player] = field(default_factory=players)
    ledger: Ledger = field(default_factory=Ledger)
    connections: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)  # shown at the end
    checks: list[Check] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set, repr=False)  # must not be seen anywhere
    accounts: Accounts = field(init=False)  # once the sandbox is there

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.screen.arrived)


async def start(play: Play) -> None:
    """An empty machine: `posthouse up`, and `posthouse sandbox` for a provider to connect accounts at"""
    said = await play.stage.sandbox("--gateway", play.stage.public_url, "--access-ttl-s", str(TOKEN_LIFE_S))
    play.accounts = Accounts(introduced(said), play.screen.say, play.secrets)
    took_s = await play.stage.start()
    play.secrets |= {play.stage.key, *play.accounts.provider.environment.values()}
    play.figures["first start, with an empty database"] = f"{took_s:.1f} s"
    play.screen.say(f"ready: {play.stage.public_url}/hooks for providers, {play.stage.private_url}/v1 for the platform")


async def set_up(play: Play) -> None:
    """Integrations from posthouse.toml, tenants and connections by API"""
    environment = dict(play.accounts.provider.environment)
    with (play.stage.folder / "posthouse.toml").open("w") as file:
        file.write(play.accounts.provider.declaration)
        for player in play.players:
            file.write(player.declaration() + "\n")
            environment |= player.environment()
    for line in (await play.stage.command("apply", "posthouse.toml", more=environment)).splitlines():
        if "/hooks/" not in line:
            play.screen.say(f"posthouse apply: {line}")
    async with Client(play.stage.private_url, play.stage.key) as posthouse:
        for tenant in TENANTS:
            await posthouse.create_tenant(tenant)
        for player in play.players:
            for tenant, account in zip(TENANTS, player.accounts, strict=False):  # the third is nobody's
                key = f"{player.account}:{account}"
                made = await posthouse.create_connection(tenant, player.integration, [key])
                play.connections[(player.integration, key)] = (made["id"], tenant)
    play.screen.say(f"{len(TENANTS)} tenants, {len(play.connections)} connections")


async def connect(play: Play) -> None:
    """Two accounts connect at the sandbox, one without a permission; their tokens are read, used, and expire"""
    async with Client(play.stage.private_url, play.stage.key) as posthouse:
        await play.accounts.whole(posthouse, "user-1", TENANTS[0])
        await play.accounts.partly(posthouse, "user-2", TENANTS[1])
        await play.accounts.told(posthouse)
        await play.accounts.outlived(posthouse)


async def revoke(play: Play) -> None:
    """An account is withdrawn at its provider: the token is refused, the event says so, and a reconnect repairs it"""
    url, key = play.stage.private_url, play.stage.key
    async with Client(url, key) as posthouse, Client(url, key, patience_s=0) as hasty:
        await revoked(posthouse, hasty, play.accounts)
        await repaired(posthouse, play.accounts)


async def renew(play: Play) -> None:
    """A crowd at an expired token is one call; a token that is in use is renewed before it expires"""
    async with Client(play.stage.private_url, play.stage.key) as posthouse:
        token = await stormed(posthouse, play.accounts, TENANTS[0])
    # That it was used is written once a minute, and when a process ends in order: so nobody has to wait for the minute.
    status, took_s = await play.stage.stop(), await play.stage.start()
    play.screen.say(f"SIGTERM, status {status}, and started again, ready after {took_s:.1f} s")
    async with Client(play.stage.private_url, play.stage.key) as posthouse:
        await renewed(posthouse, play.accounts, token)


async def traffic(play: Play) -> None:
    """A mixed stream of signed deliveries; SIGKILL in the middle; a consumer that watches live"""
    post = Post(play.stage.public_url, play.ledger, play.chance)
    async with AsyncExitStack() as stack:

        def background(work: Awaitable[None]) -> asyncio.Task[None]:
            task = asyncio.ensure_future(work)
            stack.push_async_callback(_end, task)
            return task

        watching = background(play.watcher.watch(play.stage.private_url, play.stage.key))
        background(play.screen.follow(play.players, play.ledger, play.deliveries))
        sending = background(post.deliver(play.players, play.deliveries))
        await _while(sending, watching, _kill_in_the_middle(play, post))
        await _while(watching, sending)
        owed = len(play.ledger.owed())
        play.screen.say(f"all sent; the consumer catches up: {owed} items are owed")
        try:
            async with asyncio.timeout(PATIENCE_S):
                seen = play.watcher.until(lambda entries: len({m for e in entries if (m := marker(e))}) >= owed)
                await _while(watching, seen)
        except TimeoutError:
            play.screen.say(f"the consumer has not seen everything within {PATIENCE_S:.0f} s")
    acks = sorted(play.ledger.ack_s)
    play.figures["acknowledged after, p50 / p99"] = " / ".join(
        f"{acks[min(int(len(acks) * share), len(acks) - 1)] * 1000:.0f} ms" for share in (0.5, 0.99)
    )
    play.figures["consumer connected again with Last-Event-ID after"] = f"{play.watcher.pauses} tries"


async def read_on(play: Play) -> None:
    """After the kill: both accounts' tokens, refreshed by another process than the one that connected them"""
    async with Client(play.stage.private_url, play.stage.key) as posthouse:
        await play.accounts.read_again(posthouse, "tokens are refreshed and read after the kill as before")


async def reckon(play: Play) -> None:
    """The senders' own list against the stream, read once more from its beginning"""
    stream = await read_all(play.stage.private_url, play.stage.key)
    play.checks += checks(play.ledger, stream, play.watcher.seen, play.connections)
    play.checks.append(withstood(play.ledger))
    play.checks += play.accounts.checks
    status = await play.stage.stop()
    seen = [play.screen.shown(), play.stage.log("up.log"), play.stage.log("sandbox.log")]
    play.checks.append(unseen(play.secrets, seen))
    play.checks.append(Check("the gateway ends in order on SIGTERM", int(status != 0), f"status {status}"))
    play.screen.summary(play.players, rows(play.players, play.ledger, stream))


ACTS: list[Callable[[Play], Awaitable[None]]] = [start, set_up, connect, revoke, renew, traffic, read_on, reckon]


async def perform(play: Play) -> bool:
    """All acts, then the verdict."""
    for number, act in enumerate(ACTS, 1):
        play.screen.act(f"{number}. {(act.__doc__ or '').strip()}")
        await act(play)
    took_s = play.screen.elapsed_s
    play.checks.append(Check(f"all of it within {WITHIN_S:.0f} s", int(took_s > WITHIN_S), f"{took_s:.0f} s"))
    play.screen.checks(play.checks)
    play.screen.console.print()
    for name, figure in play.figures.items():
        play.screen.console.print(f"  {name}: {figure}")
    return not any(check.faults for check in play.checks)


async def _kill_in_the_middle(play: Play, post: Post) -> None:
    goal = len(play.players) * play.deliveries * play.chance.uniform(0.4, 0.6)
    while len(play.ledger.ack_s) < goal:  # noqa: ASYNC110 what is counted is not ours to signal
        await asyncio.sleep(0.02)
    for _ in range(2000):  # and then at a moment when it matters
        if post.under_way >= MANY:
            break
        await asyncio.sleep(0)
    under_way = post.under_way
    await play.stage.kill()
    play.screen.say(f"SIGKILL: the gateway is gone, with {under_way} requests under way; nobody told the senders")
    took_s = await play.stage.start()
    play.figures["back after SIGKILL, database and all"] = f"{took_s:.1f} s"
    play.screen.say(
        f"started again, ready after {took_s:.1f} s; PostgreSQL was adopted, senders try again by themselves"
    )


async def _while(*tasks: Awaitable[None]) -> None:
    """Wait for the last of these; the others failing, or ending, is the end."""
    *others, last = [asyncio.ensure_future(task) for task in tasks]
    try:
        await asyncio.wait({last, *others}, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done() and (other.exception() or not last.done()):
                other.result()
        await last
    finally:
        if not last.done():
            last.cancel()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


__all__ = ["ACTS", "Broken", "Play", "perform"]
