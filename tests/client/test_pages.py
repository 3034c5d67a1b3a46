"""What a worker asks for and in which order, by itself: the answers are written down here."""

from __future__ import annotations

from typing import Any

from gateway.client.http import Pace
from gateway.client.leases import Leases, Part
from gateway.client.working import Batching, Worker

NOW = 100.0


class Script:
    """Answers to pages by the place asked for, and what was asked."""

    def __init__(self, **pages: tuple[list[str], str, bool]) -> None:
        self.pace = Pace(clock=lambda: NOW)
        self.asked: list[tuple[str, list[str]]] = []  # place, partitions
        self.commits: list[dict[int, str]] = []
        self._pages = pages

    async def patiently(self, method: str, path: str, **more: Any) -> Any:
        if method == "POST":
            self.commits.append({one["partition"]: one["cursor"] for one in more["body"]["partitions"]})
            return None
        params = more["params"]
        place = dict(params)["after"]
        self.asked.append((place, [value for name, value in params if name == "partition"]))
        cursors, upto, at_end = self._pages[place]
        return {"items": [_sent(cursor) for cursor in cursors], "next_cursor": upto, "at_end": at_end}


def _sent(cursor: str) -> dict[str, Any]:
    event = {"id": cursor, "type": "t", "source": "/", "time": "2026-11-23T12:00:00Z",
             "datacontenttype": "application/json", "data_base64": ""}  # fmt: skip
    return {"cursor": cursor, "partitions": [], "connections": [], "tenants": [], "event": event, "delivery": {}}


def worker(script: Script, **places: str) -> tuple[Worker, Leases]:
    """One that holds partitions p1, p2 … at these places."""
    leases = Leases(script, "c", "w", 30, "earliest")  # type: ignore[arg-type]  # a script instead of HTTP
    leases.held = {int(name[1:]): Part(fence=1, done=place, committed=place) for name, place in places.items()}
    return Worker(script, "c", leases, [], Batching()), leases  # type: ignore[arg-type]  # the same


async def read(work: Worker, leases: Leases) -> list[str]:
    """One turn, all of it finished."""
    page = await work._read()
    assert page is not None
    leases.finished(page.group, page.upto)
    return [one.cursor for one in page.entries]


async def test_each_group_has_its_turn_and_stops_where_the_next_one_stands() -> None:
    """The front first, then those behind; what lies past the next group's place is left for when they are joined."""
    script = Script(**{"01": (["03", "06"], "06", False), "05": (["08"], "08", False)})
    work, leases = worker(script, p1="01", p2="01", p3="05")
    assert await read(work, leases) == ["08"]
    assert script.asked == [("05", ["3"])]
    assert await read(work, leases) == ["03", "06"]
    assert {part.done for part in (leases.held[1], leases.held[2])} == {"06"}

    script = Script(**{"01": (["03", "07"], "07", False), "05": ([], "05", True)})
    work, leases = worker(script, p1="01", p3="05")
    assert await read(work, leases) == []
    assert await read(work, leases) == ["03"], "07 lies past 05"
    assert {part.done for part in leases.held.values()} == {"05"}, "joined: from here on they are read together"


async def test_a_group_that_finds_the_end_joins_the_one_ahead() -> None:
    """Nothing lies between the two places any more (retention took it, say): they meet all the same."""
    script = Script(**{"01": ([], "01", True), "05": ([], "05", True)})
    work, leases = worker(script, p1="01", p3="05")
    await read(work, leases)
    await read(work, leases)
    assert {part.done for part in leases.held.values()} == {"05"}


async def test_what_is_committed_is_not_committed_again() -> None:
    """All that moved, once; nothing when nothing moved."""
    script = Script()
    work, leases = worker(script, p1="01", p2="01", p3="05")
    leases.finished({1: 1, 2: 1}, "04")
    await work.commit()
    await work.commit()
    leases.finished({3: 2}, "09")  # of a lease that is over
    leases.finished({1: 1}, "03")  # behind what is done
    await work.commit()
    assert script.commits == [{1: "04", 2: "04"}]
