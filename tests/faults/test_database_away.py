"""Databases that are away or silent, under the public listener: 503 within 2 s, and in again by itself."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.clock import SystemClock
from gateway.database import Database
from gateway.service import Gateway
from gateway.settings import Settings
from tests.clock import FakeClock
from tests.flows.house import House, declare, opened
from tests.stream.lossy import LossyWire
from tests.stream.making import until
from tests.wire import wire

PROMISE_S = 2.0


async def acknowledged(house: House, name: str) -> bool:
    """Whether a new delivery is; the answer must be that or 503."""
    answer = await house.deliver(name)
    assert answer.status in (200, 202, 503)
    return answer.status < 300


@pytest.mark.parametrize("name", ["github", "microsoft/endpoint"])
@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_region_that_is_away_is_a_503_within_2_s(
    house: House, line: LossyWire, clock: FakeClock, name: str, how: str
) -> None:
    """With Retry-After, whatever the provider does with it; many at once wait no longer; afterwards all goes on."""
    assert await acknowledged(house, name)
    clock.move(5)  # what the process remembers of endpoints is too old now
    await (line.close() if how == "refused" else asyncio.sleep(0))
    if how == "silent":
        line.mute()
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(*(house.deliver(name) for _ in range(20)))
    took_s = loop.time() - began
    assert {(answer.status, answer.body) for answer in answers} == {(503, b"unavailable")}
    assert {answer.header("retry-after") for answer in answers} == {"2"}
    assert took_s < PROMISE_S  # measured with half the deadline, for a busy machine's sake
    assert Settings.model_fields["commit_deadline_s"].default + 0.1 < PROMISE_S
    await line.open()
    await until(lambda: acknowledged(house, name))


async def test_a_forgery_is_refused_whether_or_not_the_database_is_there(house: House, line: LossyWire) -> None:
    """Verification needs no database; what is refused waits for none."""
    await line.close()
    answer = await house.deliver("github", secret=b"a secret of another app")
    assert (answer.status, answer.body) == (401, b"signature_mismatch")
    await line.open()


END_ALL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = current_database() AND pid <> pg_backend_pid()"""


async def test_connections_that_the_server_ends_cost_nothing(house: House, dsn: str) -> None:
    """Deliveries sent until each is acknowledged, while every connection is ended time and again: each is there once."""
    server = await asyncpg.connect(dsn)

    async def send(number: int) -> None:
        async def once() -> bool:
            return (await house.deliver("github", delivery_id=f"d-{number}")).status == 200

        await until(once)

    sending = [asyncio.create_task(send(number)) for number in range(30)]
    for _ in range(5):
        await server.execute(END_ALL)
    await asyncio.gather(*sending)
    await server.close()
    ids = [event.delivery["headers"]["x-github-delivery"] for event in await house.kept()]
    assert sorted(ids) == sorted(f"d-{number}" for number in range(30))


@pytest.mark.parametrize("loss", ["request", "half of the request", "answer", "last word"])
async def test_a_commit_whose_answer_is_lost_is_acknowledged_once_and_counts_as_kept(
    house: House, line: LossyWire, loss: str
) -> None:
    """Sent again by itself, it finds its own keys; the provider sees one 2xx, the stream one event."""
    await acknowledged(house, "slack")
    line.lose(loss)  # type: ignore[arg-type]  # the parameters above
    assert (await house.deliver("slack")).status == 200
    assert line.lost.is_set()
    assert len(await house.kept()) == 2


async def test_with_control_away_known_integrations_go_on_until_their_memory_is_too_old(
    dsn: str, database: Database, settings: Settings, clock: FakeClock
) -> None:
    """Routes and secrets come from memory for `stale_control_s`; then 503, never 404; then it is well again."""
    async with wire(dsn) as control:
        apart = {"database_url": SecretStr(dsn), "control_database_url": SecretStr(control.dsn)}
        gateway = await Gateway.open(settings.model_copy(update=apart), clock)
        async with opened(gateway) as house:
            await declare(house, "github")
            await control.cut()
            clock.move(settings.stale_control_s - 1)
            assert (await house.deliver("github")).status == 200
            assert (await house.deliver("github", secret=b"a secret of another app")).status == 401
            assert (await house.deliver("github", target="/hooks/nobody")).status == 404
            clock.move(2)
            for target in ("/hooks/github", "/hooks/nobody"):
                late = await house.deliver("github", target=target)
                assert (late.status, late.header("retry-after")) == (503, "2")
            await control.mend()
            await until(lambda: acknowledged(house, "github"))
        await gateway.close()
    assert await database.fetchval("SELECT count(*) FROM gateway.events") == 2


async def test_a_process_that_starts_without_its_database_says_so_in_time(dsn: str, settings: Settings) -> None:
    """`Gateway.open` is told within seconds, so that `serve` can wait and answer 503 meanwhile."""
    async with wire(dsn) as line:
        await line.cut()
        with pytest.raises(ConnectionRefusedError):
            await Gateway.open(settings.model_copy(update={"database_url": SecretStr(line.dsn)}), SystemClock())
