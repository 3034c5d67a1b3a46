"""Reading after a cursor: filters, pages, their limits, and the ends of the log."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.database import Database
from gateway.errors import CursorGone
from gateway.stream.append import append
from gateway.stream.cursor import Cursor
from gateway.stream.read import (
    MAX_BYTES,
    MAX_EVENTS,
    READ,
    STRETCH,
    Event,
    Filter,
    Page,
    at_time,
    earliest,
    latest,
    like_prefix,
    read,
)
from tests.stream.making import INTEGRATION, OTHER_INTEGRATION, connect, event, everything, fresh, keep, shift

TYPES = [
    "a", "a.b", "a.b.c", "a.bc", "a.b.", "a_b", "axb", "axb.c", "a_b.c", "a%b", "a%b.c", "a\\b", "a\\b.c", "b", "a.b%c", "A.B",
    "", "ünï.cödé", "a.b.c.d",
]  # fmt: skip


def fits(type: str, wanted: str) -> bool:
    """What a dotted prefix means."""
    return type == wanted or type.startswith(wanted + ".")


async def test_types_are_whole_or_dotted_prefixes(database: Database) -> None:
    """`a.b` is `a.b` and `a.b.c`, never `a.bc`; what LIKE would take for a wildcard is a letter here."""
    await keep(database, *(event(type=type) for type in TYPES))
    for wanted in TYPES:
        found = [one.type for one in await everything(database, Filter(types=(wanted,)))]
        assert found == [type for type in TYPES if fits(type, wanted)], wanted
    several = Filter(types=("a.b.c", "b", "a_b", "none"))
    found = [one.type for one in await everything(database, several)]
    assert found == [type for type in TYPES if any(fits(type, wanted) for wanted in several.types or ())]
    assert await everything(database, Filter(types=())) == []


async def test_filters_together(database: Database) -> None:
    """Integration, tenant, connection, partitions, types: an event fits all that are given."""
    chance = random.Random(5)
    accounts, connections = [fresh() for _ in range(9)], []
    for number, account in enumerate(accounts):
        connections.append(await connect(database, tenant="acme" if number % 3 else "globex", accounts=(account,)))
    sent = [
        event(b"%d" % n, type=chance.choice(("x.a", "x.b", "y")), accounts=tuple(chance.sample(accounts, chance.randint(0, 3))),
              integration=chance.choice((INTEGRATION, INTEGRATION, OTHER_INTEGRATION)))
        for n in range(400)
    ]  # fmt: skip
    await keep(database, *sent)
    log = await everything(database)

    def wants(wish: Filter, one: Event) -> bool:
        return (
            (wish.types is None or any(fits(one.type, type) for type in wish.types))
            and (wish.integration is None or one.integration == wish.integration)
            and (wish.tenant is None or wish.tenant in one.tenants)
            and (wish.connection is None or wish.connection in one.connections)
            and (wish.partitions is None or bool({*wish.partitions} & {*one.partitions}))
        )

    for _ in range(150):
        wish = Filter(
            types=chance.choice((None, None, ("x",), ("x.a", "y"))),
            integration=chance.choice((None, INTEGRATION, OTHER_INTEGRATION)),
            tenant=chance.choice((None, "acme", "globex", "nobody")),
            connection=chance.choice((None, None, *connections)),
            partitions=chance.choice((None, None, tuple(range(32)), (connections[0].bytes[15] % 64,))),
        )
        limit = chance.choice((1, 7, 1000))
        assert await everything(database, wish, limit=limit) == [one for one in log if wants(wish, one)], wish


async def test_a_rare_match_costs_several_quick_reads_and_is_found(database: Database) -> None:
    """Each read looks at a bounded stretch and says how far it came: an empty page that is not at the end goes on."""
    await database.execute(
        """INSERT INTO gateway.events (seq, at, id, type, time, connections, tenants, partitions, accounts, signal, content_type, data)
           SELECT nextval('gateway.events_seq'), gateway.now(), gen_random_uuid(), CASE WHEN g = $1 THEN 'rare' ELSE 'common' END,
                  gateway.now(), '{}', '{}', '{0}', '{}', false, 'text/plain', '' FROM generate_series(1, $2) g""",
        STRETCH * 2 + 10, STRETCH * 3 + 5,
    )  # fmt: skip
    rare = Filter(types=("rare",))
    async with database.acquire() as db:
        cursor, pages = await earliest(db), list[Page]()
        while not pages or not pages[-1].at_end:
            pages.append(await read(db, cursor, rare, 10))
            assert pages[-1].next > cursor
            cursor = pages[-1].next
    assert [len(page.events) for page in pages] == [0, 0, 1, 0]
    assert [page.next.seq for page in pages] == [STRETCH, STRETCH * 2, STRETCH * 3, STRETCH * 3 + 5]
    async with database.acquire() as db:
        assert cursor == await latest(db)
        assert (await read(db, cursor, rare, 10)).next == cursor


async def test_a_page_ends_by_its_bytes(database: Database) -> None:
    """At most 8 MiB of data a page, unless one event alone is larger; nothing is skipped at the seam."""
    sizes = [3, 3, 3, 0, 9, 0, 0, 8, 0, 1, 12, 12, 7, 1, 0]
    await keep(database, *(event(bytes(size << 20)) for size in sizes))
    for wish in (Filter(), Filter(types=("posthouse",))):
        pages: list[Page] = []
        async with database.acquire() as db:
            cursor = await earliest(db)
            while not pages or not pages[-1].at_end:
                pages.append(await read(db, cursor, wish, 100))
                cursor = pages[-1].next
        got = [[len(one.data) >> 20 for one in page.events] for page in pages]
        assert [size for page in got for size in page] == sizes
        assert all(sum(page) << 20 <= MAX_BYTES or sorted(page)[:-1] == [0] * (len(page) - 1) for page in got), got
        assert [3, 3] in got


async def test_a_page_ends_by_the_bytes_that_its_reader_wants(database: Database) -> None:
    """Who keeps many pages in memory asks for small ones; an event that is larger comes alone."""
    sizes = [300, 300, 300, 300, 2000, 0, 1024, 1]
    await keep(database, *(event(bytes(size << 10)) for size in sizes))
    got = []
    async with database.acquire() as db:
        cursor, at_end = await earliest(db), False
        while not at_end:
            page = await read(db, cursor, Filter(), 100, 1 << 20)
            got.append([len(one.data) >> 10 for one in page.events])
            cursor, at_end = page.next, page.at_end
    assert got == [[300, 300, 300], [300], [2000], [0, 1024], [1]]


async def test_limits_and_the_end(database: Database) -> None:
    """Never more than asked for, nor than 1,000; `at_end` is said when there was nothing more, and only then."""
    await keep(database, *(event(b"%d" % n) for n in range(MAX_EVENTS + 20)))
    async with database.acquire() as db:
        start = await earliest(db)
        for limit, count, at_end in (
            (1, 1, False),
            (0, 1, False),
            (-5, 1, False),
            (999, 999, False),
            (5000, 1000, False),
        ):
            page = await read(db, start, Filter(), limit)
            assert (len(page.events), page.at_end) == (count, at_end)
            assert page.next == page.events[-1].cursor(start.epoch)
        page = await read(db, page.next, Filter(), 21)
        assert (len(page.events), page.at_end) == (20, True)
        page = await read(db, page.next, Filter(), 21)
        assert (page.events, page.at_end) == ((), True)


async def test_an_empty_log(database: Database) -> None:
    """Start and end are the same place; a cursor into it is beyond the end."""
    async with database.acquire() as db:
        start = await earliest(db)
        assert start == await latest(db) == await at_time(db, datetime.now(UTC))
        page = await read(db, start, Filter(), 10)
        assert (page.events, page.next, page.at_end) == ((), start, True)
        with pytest.raises(CursorGone) as refused:
            await read(db, Cursor(start.epoch, 1), Filter(), 10)
        assert refused.value.extra["earliest"] == str(start)


async def test_numbers_that_were_never_committed_are_no_places_of_their_own(database: Database) -> None:
    """A rolled back append leaves a hole: cursors before, in and after it lead on."""
    await keep(database, event(b"1"))
    db = await database.connect()
    try:
        await db.execute("BEGIN")
        await append(db, [event() for _ in range(5)])
        await db.execute("ROLLBACK")
    finally:
        await db.close()
    await keep(database, event(b"2"))
    one, two = await everything(database)
    assert two.seq - one.seq == 6
    async with database.acquire() as held:
        epoch = (await earliest(held)).epoch
        for seq in range(one.seq, two.seq):
            assert (await read(held, Cursor(epoch, seq), Filter(), 10)).events == [two]


async def test_places_in_time(database: Database) -> None:
    """Before the first event kept at or after the time; before everything, and after it."""
    for number in range(5):
        await keep(database, event(b"%d" % number))
        async with database.acquire() as db:
            await shift(db, timedelta(hours=1))
    log = await everything(database)
    async with database.acquire() as db:
        for number, one in enumerate(log):
            for when, rest in ((one.at, log[number:]), (one.at + timedelta(seconds=1), log[number + 1 :])):
                cursor = await at_time(db, when)
                assert await everything(database, after=cursor) == rest
        assert await at_time(db, log[0].at - timedelta(days=400)) == await earliest(db)
        assert await at_time(db, log[-1].at + timedelta(days=400)) == await latest(db)


async def test_an_event_comes_out_as_it_went_in(database: Database) -> None:
    """Bytes, JSON and times survive as they are, those beyond text as well."""
    sent = event(
        bytes(range(256)) * 3, type="ünï", content_type="text/plain; charset=\"x\"",
        delivery='{"b": 1, "a": "ü\\u0000", "a": 2}'.encode(),
    )  # fmt: skip
    [kept] = await keep(database, sent)
    [one] = await everything(database)
    assert (one.seq, one.id, one.type, one.time) == (kept.seq, sent.id, sent.type, sent.time)
    assert (one.content_type, one.data, one.integration) == (sent.content_type, sent.data, INTEGRATION)
    assert one.delivery == '{"b": 1, "a": "ü\\u0000", "a": 2}'


async def test_a_cursor_of_another_epoch_or_event(database: Database) -> None:
    """Told before anything is read, with the way on; an unmarked one is taken at its word."""
    await keep(database, event(), event())
    log = await everything(database)
    async with database.acquire() as db:
        start = await earliest(db)
        good = log[0].cursor(start.epoch)
        assert (await read(db, good, Filter(), 10)).events == log[1:]
        assert (await read(db, Cursor(start.epoch, log[0].seq), Filter(), 10)).events == log[1:]
        for bad in (
            Cursor(start.epoch ^ 1, good.seq, good.mark),
            Cursor(start.epoch, good.seq, bytes(b ^ 1 for b in good.mark)),
            Cursor(start.epoch, 2**63 - 1),
        ):
            with pytest.raises(CursorGone) as refused:
                await read(db, bad, Filter(), 10)
            assert refused.value.extra["earliest"] == str(start)


@given(st.text(max_size=30))
def test_a_prefix_is_escaped(prefix: str) -> None:
    """No character of it is a wildcard."""
    pattern = like_prefix(prefix)
    assert pattern.endswith(".%")
    plain, escaped = [], False
    for letter in pattern[:-2]:
        if escaped or letter != "\\":
            assert escaped or letter not in "%_"
            plain.append(letter)
        escaped = not escaped and letter == "\\"
    assert "".join(plain) == prefix


async def test_reading_costs_the_same_far_into_the_log(database: Database) -> None:
    """A page is found by index in each day and merged: no day is read whole, however the plan was made."""
    await database.execute("SELECT gateway.make_partitions(7)")
    await database.execute(
        """INSERT INTO gateway.events (seq, at, id, type, time, connections, tenants, partitions, accounts, signal, content_type, data)
           SELECT g, gateway.now() + g / 10000 * interval '1 day', gen_random_uuid(), 'x', gateway.now(), '{}', '{}', '{0}',
                  '{}', false, 'text/plain', '' FROM generate_series(1, 60000) g"""
    )
    for mode in ("force_custom_plan", "force_generic_plan"):
        db = await database.connect()
        try:
            await db.execute(f"SET plan_cache_mode = {mode}")
            await db.execute("PREPARE page AS " + READ)
            plan = await db.fetch(
                "EXPLAIN (ANALYZE, TIMING OFF, FORMAT TEXT) EXECUTE page(30000, 100, NULL, NULL, NULL, NULL, NULL, NULL, 100, 1000000)"
            )
        finally:
            await db.close()
        text = "\n".join(row[0] for row in plan)
        assert "Merge Append" in text, text
        assert "Seq Scan on events" not in text, text
