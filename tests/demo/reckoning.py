"""The senders' list against the stream. Pure: lists in, rows and checks out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.client import Entry
from tests.demo.cast import Player
from tests.demo.ledger import Fate, Ledger, Sending
from tests.demo.watching import marker

Connections = Mapping[tuple[str, str], tuple[str, str]]  # (integration, account key) -> (connection, tenant)


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must be so."""

    what: str
    faults: int
    example: str = ""


def rows(players: Sequence[Player], ledger: Ledger, stream: Sequence[Entry]) -> list[tuple[str, list[int]]]:
    """The summary: one column a provider, and all of them."""
    columns: list[str | None] = [*(player.integration for player in players), None]
    on_stream = Counter(found for entry in stream if (found := marker(entry)))
    reasons = sorted({reason for one in ledger.sendings for reason in one.refused})

    def figure(column: str | None, kind: str) -> int:
        sendings = ledger.of(column)
        owed = {item.marker for one in sendings if one.acknowledged for item in one.items}
        acknowledged = sum(one.acknowledged * len(one.items) for one in sendings)
        return {
            "requests sent": sum(one.sent for one in sendings),
            "  acknowledged (2xx)": sum(one.acknowledged for one in sendings),
            "  unanswered, sent again": sum(one.unanswered + one.busy for one in sendings),
            "items acknowledged": acknowledged,
            "  duplicates dropped": acknowledged - len(owed),
            "  on the stream exactly once": sum(on_stream[one] == 1 for one in owed),
            "  lost": sum(on_stream[one] == 0 for one in owed),
            "  doubled": sum(on_stream[one] > 1 for one in owed),
        }[kind]

    def table(kind: str) -> tuple[str, list[int]]:
        return kind, [figure(column, kind) for column in columns]

    refused = [
        (f"  refused: {reason}", [sum(one.refused[reason] for one in ledger.of(column)) for column in columns])
        for reason in reasons
    ]
    return [
        table("requests sent"), table("  acknowledged (2xx)"), *refused, table("  unanswered, sent again"),
        table("items acknowledged"), table("  duplicates dropped"), table("  on the stream exactly once"),
        table("  lost"), table("  doubled"),
    ]  # fmt: skip


def checks(ledger: Ledger, stream: Sequence[Entry], live: Sequence[Entry], connections: Connections) -> list[Check]:
    """Everything that must hold at the end."""
    owed = ledger.owed()
    times = Counter(found for entry in stream if (found := marker(entry)))
    strangers = [found for found in times if found not in owed]
    lost, doubled = [m for m in owed if not times[m]], [m for m in owed if times[m] > 1]
    wrong = [one for one in ledger.sendings if not _as_due(one)]
    changed, astray = [], []
    for entry in stream:
        item = owed.get(marker(entry) or "")
        if item is None:
            continue
        if entry.event.data != item.data:
            changed.append(item.marker)
        connection, tenant = connections.get((entry.event.integration or "", item.account), ("", ""))
        if (entry.connections, entry.tenants) != (((connection,), (tenant,)) if connection else ((), ())):
            astray.append(item.marker)
    seen = [entry.cursor for entry in live]
    due = [entry.cursor for entry in stream]
    return [
        check("every acknowledged item is on the stream", lost),
        check("none is there twice", doubled),
        check("nothing else is there: no forged, altered, stale or unsigned delivery", strangers),
        check("each delivery was answered as it deserved", [one.id for one in wrong]),
        check("bytes on the stream are the bytes that were sent", changed),
        check("each item belongs to its account's connection and tenant, and to no other", astray),
        Check("the live consumer saw the same, once and in order, across the kill", int(seen != due),
              f"{len(seen)} of {len(due)}"),
    ]  # fmt: skip


def withstood(ledger: Ledger) -> Check:
    """A run in which nothing went wrong for the senders has shown nothing."""
    met = {
        "no duplicate": sum(one.acknowledged * len(one.items) for one in ledger.sendings) > len(ledger.owed()),
        "no refusal": any(one.refused for one in ledger.sendings),
        "no request cut off": any(one.unanswered for one in ledger.sendings),
    }
    return check(
        "there were duplicates, forgeries and a kill to withstand", [what for what, so in met.items() if not so]
    )


def unseen(secrets: Collection[str], texts: Iterable[str]) -> Check:
    """No secret stands in what was printed or logged; which one it was is not told either."""
    whole = ["".join(text.split()) for text in texts]  # a terminal breaks lines
    found = sum(secret in text for text in whole for secret in secrets)
    least = 3  # an API key, a client secret, a token: with fewer there was nothing to look for
    return check("no token, code, link, key or secret was printed or logged",
                 ["one of them"] * found + ["nothing was looked for"] * (len(secrets) < least))  # fmt: skip


def _as_due(one: Sending) -> bool:
    if one.fate.due is None:
        repeats = one.fate is Fate.REPEATED
        return not one.refused and (one.acknowledged >= 2 if repeats else one.acknowledged == 1)
    return not one.acknowledged and set(one.refused) == {one.fate.due}


def check(what: str, faults: Sequence[str]) -> Check:
    """Right where there is no fault."""
    return Check(what, len(faults), faults[0] if faults else "")
