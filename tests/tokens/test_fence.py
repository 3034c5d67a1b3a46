"""After a revocation commits, no request received later gets the token: from any process, whatever it has cached.

The same scenes are run once more with the fence taken out (a read may join a check that is under way): they must see it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway.clock import Clock
from gateway.errors import Problem
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.tokens.check import Checks, Found, Read
from tests.tokens.conftest import Account, move

READERS, MOMENTS = 8, 6

# A statement that has its snapshot waits in here, for as long as the test holds the lock.
SLOW = """
CREATE FUNCTION gateway.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON gateway.audit FOR EACH ROW EXECUTE FUNCTION gateway.wait()"""


class Violated(AssertionError):
    """A token left for a request that came after the revocation."""


@pytest.fixture
async def second(account: Account, settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """Another process on the same database."""
    made = await Gateway.open(settings.model_copy(update={"outbound_allow": ["127.0.0.0/8"]}), clock)
    yield made
    await made.close()


def joins_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence taken out: a read that finds a check of the same grant under way waits for that one."""
    ask = Checks.ask
    under_way: dict[Any, asyncio.Future[list[Found]]] = {}

    async def joining(self: Checks, asked: Read, **more: Any) -> list[Found]:
        name = (id(self), asked.connection, asked.access_profile)
        if name not in under_way:
            under_way[name] = asyncio.ensure_future(ask(self, asked, **more))
            under_way[name].add_done_callback(lambda _: under_way.pop(name))
        return await under_way[name]

    monkeypatch.setattr(Checks, "ask", joining)


async def gets(gateway: Gateway, account: Account) -> bool:
    """Whether a request that is received now gets the token."""
    try:
        await gateway.tokens.read(Read(account.id, "reader", 60, account.id))
    except Problem as problem:
        if problem.code != "connection_revoked":
            raise
        return False
    return True


async def one_is_under_way_while_it_is_revoked(account: Account, gateway: Gateway, dsn: str) -> None:
    """The first reader's statement has seen the grant alive; then it is revoked; then the second reader comes.

    Raises: Violated.
    """
    holder = await asyncpg.connect(dsn)
    await holder.execute(SLOW)
    await holder.execute("SELECT pg_advisory_lock(4711)")
    first = asyncio.create_task(gets(gateway, account))
    while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):  # noqa: ASYNC110 - on a result
        await asyncio.sleep(0)
    await move(gateway, account.id, "revoked", "uninstalled", "reader")
    second = asyncio.create_task(gets(gateway, account))
    for _ in range(5):
        await asyncio.sleep(0)  # it is received, and waits
    await holder.execute("SELECT pg_advisory_unlock(4711)")
    await holder.close()
    assert await first  # received before: either answer is right, and this is the one that its snapshot gave
    if await second:
        raise Violated


async def readers_hammer_while_it_is_revoked(account: Account, gateways: list[Gateway], moment: int) -> int:
    """Revoke after `moment` reads, from another process than most of them; how many tokens left.    Raises: Violated."""
    await account.set(state="active", reason=None)
    loop = asyncio.get_running_loop()
    reads, committed_at, late = 0, float("inf"), []
    revoking: asyncio.Task[None] | None = None

    async def revoke() -> None:
        nonlocal committed_at
        await move(random.choice(gateways), account.id, "revoked", "uninstalled", "reader")
        committed_at = loop.time()

    async def reader(gateway: Gateway) -> None:
        nonlocal reads, revoking
        refused = 0
        while refused < 5:
            received_at = loop.time()
            after = received_at > committed_at
            got = await gets(gateway, account)
            reads += got
            refused += not got
            if got and after:
                late.append(received_at - committed_at)
            if reads >= moment and revoking is None:
                revoking = asyncio.create_task(revoke())

    await asyncio.gather(*(reader(gateways[n % len(gateways)]) for n in range(READERS)))
    assert revoking is not None
    await revoking
    if late:
        raise Violated(f"{len(late)} tokens left up to {max(late):.3f} s after the revocation")
    return reads


async def test_a_read_that_comes_after_a_revocation_does_not_share_the_check_of_one_before(
    account: Account, second: Gateway, dsn: str
) -> None:
    await one_is_under_way_while_it_is_revoked(account, second, dsn)


async def test_nobody_gets_a_token_after_its_revocation(account: Account, second: Gateway) -> None:
    """Two processes, readers at both, revoked at moments of chance, reconnected each time."""
    gateways = [account.town.gateway, second]
    for _ in range(MOMENTS):
        assert await readers_hammer_while_it_is_revoked(account, gateways, random.randint(0, 60)) > 0


async def test_without_the_fence_this_is_seen(
    account: Account, second: Gateway, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scene above turns red when reads join what is under way."""
    joins_what_is_under_way(monkeypatch)
    with pytest.raises(Violated):
        await one_is_under_way_while_it_is_revoked(account, second, dsn)


async def test_every_token_that_leaves_has_its_audit_row_already(account: Account) -> None:
    for reads in range(1, 10):
        assert await gets(account.town.gateway, account)
        assert await account.audited() == [("token.read", 1)] * reads
