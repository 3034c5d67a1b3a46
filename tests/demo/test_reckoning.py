"""The demo's own judgement: what differs is found, whichever way it differs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.client import CloudEvent, Entry
from tests.demo.cast import players
from tests.demo.ledger import Fate, Item, Ledger, Sending
from tests.demo.reckoning import checks, rows, unseen, withstood

CONNECTIONS = {("my-slack", "team:T1"): ("conn_1", "acme")}


def sending(number: int, fate: Fate = Fate.GENUINE, acknowledged: int = 1, account: str = "team:T1") -> Sending:
    marker = f"demo-my-slack-{number:05}-0"
    item = Item(marker, f'{{"text":"{marker}"}}'.encode(), account)
    refused = Counter({fate.due: 1}) if fate.due else Counter[str]()
    made = Sending("my-slack", marker[:-2], item.data, (item,), fate, 1, 0 if fate.due else acknowledged)
    made.refused = refused
    return made


def event(one: Sending, cursor: str) -> Entry:
    [item] = one.items
    whose = CONNECTIONS.get(("my-slack", item.account))
    about = CloudEvent("evt", "posthouse.delivery.slack.message", "/", datetime.now(UTC), "application/json", item.data,
                       integration="my-slack")  # fmt: skip
    return Entry(cursor, (1,), (whose[0],) if whose else (), (whose[1],) if whose else (), about, {})


@pytest.fixture
def ledger() -> Ledger:
    """One of each: in earnest, repeated, of an account that nobody connected, forged."""
    made = Ledger()
    made.sendings = [sending(1), sending(2, Fate.REPEATED, 2), sending(3, account="team:T9"), sending(4, Fate.FORGED)]
    return made


@pytest.fixture
def stream(ledger: Ledger) -> list[Entry]:
    return [event(one, str(place)) for place, one in enumerate(ledger.sendings[:3])]


def wrong(ledger: Ledger, stream: list[Entry], live: list[Entry] | None = None) -> list[str]:
    found = checks(ledger, stream, stream if live is None else live, CONNECTIONS)
    return [check.what for check in found if check.faults]


def test_all_is_well(ledger: Ledger, stream: list[Entry]) -> None:
    """Nothing differs, and the table adds up."""
    assert wrong(ledger, stream) == []
    table = {name.strip(): figures[-1] for name, figures in rows(players(), ledger, stream)}
    assert table["items acknowledged"] == table["on the stream exactly once"] + table["duplicates dropped"] == 4
    assert (table["lost"], table["doubled"], table["refused: signature_mismatch"]) == (0, 0, 1)


def test_what_is_lost_doubled_or_should_not_be_there(ledger: Ledger, stream: list[Entry]) -> None:
    """Each has its own line."""
    assert "every acknowledged item is on the stream" in wrong(ledger, stream[1:])
    assert "none is there twice" in wrong(ledger, [*stream, event(ledger.sendings[0], "9")])
    forged = event(ledger.sendings[3], "9")
    assert any("nothing else is there" in what for what in wrong(ledger, [*stream, forged]))


def test_a_wrong_answer(ledger: Ledger, stream: list[Entry]) -> None:
    """A forged delivery that was acknowledged, one in earnest that was refused, a forged one refused for another reason."""
    line = "each delivery was answered as it deserved"
    for number, change in ((3, {"acknowledged": 1}), (0, {"refused": Counter({"signature_mismatch": 1})}),
                           (3, {"refused": Counter({"malformed": 1})}), (1, {"acknowledged": 1})):  # fmt: skip
        before = ledger.sendings[number]
        ledger.sendings[number] = replace(before, **change)
        assert line in wrong(ledger, stream)
        ledger.sendings[number] = before
    assert wrong(ledger, stream) == []


def test_other_bytes_and_other_owners(ledger: Ledger, stream: list[Entry]) -> None:
    """A byte that changed on the way; an item that another tenant sees."""
    first = stream[0]
    changed = replace(first, event=replace(first.event, data=first.event.data + b" "))
    assert wrong(ledger, [changed, *stream[1:]]) == ["bytes on the stream are the bytes that were sent"]
    [astray] = wrong(ledger, [replace(first, tenants=("globex",)), *stream[1:]])
    assert "account's connection and tenant" in astray


def test_the_live_consumer_must_have_seen_the_same(ledger: Ledger, stream: list[Entry]) -> None:
    """One missed, one twice, two in another order."""
    for live in (stream[1:], [stream[0], *stream], [stream[1], stream[0], stream[2]]):
        [told] = wrong(ledger, stream, live)
        assert "live consumer" in told


def test_a_run_without_trouble_proves_nothing(ledger: Ledger) -> None:
    """No kill was felt: said, and not all right."""
    assert withstood(ledger).example == "no request cut off"
    ledger.sendings[0].unanswered = 1
    assert not withstood(ledger).faults


def test_a_secret_that_was_printed_is_found() -> None:
    """Also where a terminal broke the line; and looking for nothing shows nothing."""
    secrets = {"key_0123456789", "at_abcdefghij", "rt_klmnopqrst"}
    assert not unseen(secrets, ["key_01234 56", "", "at_abc"]).faults
    told = unseen(secrets, ["fine", "said at_abc\n  defghij."])
    assert told.faults == 1
    assert "abc" not in told.example
    assert unseen(set(), ["fine"]).faults
