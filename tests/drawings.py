"""What the documents show of the code: the machine's picture and tables, and what each provider can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from gateway.connections.machine import SIGNALS, TABLE, step
from gateway.connections.states import STATES, State, fold
from providers.oauth import OAuthFacts
from providers.registry import Provider, all_providers
from providers.signals import Knows, Tells

KNOWN_BY: dict[Knows, str] = {
    "time": "a signed time",
    "final": "a name that never comes back",
    "token": "the token it names",
    "nothing": "nothing: a check decides",
}
STAYS, ILLEGAL = "·", "–"


def machine() -> str:
    """The moves as a picture (edges with the same ends are one), then every pair as a table."""
    moves = [(state, step(state, signal), signal) for state in STATES for signal in SIGNALS]
    moved = sorted(
        ((state, did.to, signal) for state, did, signal in moves if did.outcome == "moved"),
        key=lambda move: (STATES.index(move[0]), STATES.index(move[1]), SIGNALS.index(move[2])),
    )
    edges = [
        f"    {before} --> {after}: {', '.join(signal for *_, signal in group)}"
        for (before, after), group in groupby(moved, key=lambda move: move[:2])
    ]
    picture = ["```mermaid", "stateDiagram-v2", "    [*] --> pending", *edges, "    closed --> [*]", "```"]
    rows = [[f"`{signal}`", *(_cell(state, TABLE[state][signal]) for state in STATES)] for signal in SIGNALS]
    return "\n".join([*picture, "", *table(["signal", *(f"`{state}`" for state in STATES)], rows)])


def _cell(state: State, to: State | None) -> str:
    return ILLEGAL if to is None else STAYS if to == state else to


def folding() -> str:
    """What two grants make of their connection; a closed one does not count."""
    open_ones = [state for state in STATES if state != "closed"]
    rows = [[f"`{one}`", *(fold((one, other)) for other in open_ones)] for one in open_ones]
    return "\n".join(table(["with", *(f"`{state}`" for state in open_ones)], rows))


def telling() -> str:
    """What each provider can tell of grants, and what can be asked of it."""
    known = [provider for _, provider in sorted(all_providers().items())]
    alike: dict[tuple[Tells, ...], list[str]] = {}  # who tells the same shares its rows
    for provider in known:
        alike.setdefault(provider.facts.signals, []).append(provider.facts.title)
    rows = [row for tells, titles in alike.items() for row in _told(", ".join(titles), tells)]
    told = table(["provider", "delivery", "says", "which grant it means is known by"], rows)
    asked = [
        [provider.facts.title, _answer(provider, provider.oauth), _rotation(provider.oauth)]
        for provider in known if provider.oauth is not None
    ]  # fmt: skip
    return "\n".join([*told, "", *table(["provider", "what a check asks it", "its refresh tokens"], asked)])


def _told(titles: str, all_tells: Sequence[Tells]) -> list[list[str]]:
    """A row for what is said, and known, in the same way."""
    links: dict[tuple[str, str], list[str]] = {}
    for tells in all_tells:
        says = ", ".join(f"`{one}`" for one in tells.says) or "nothing of a grant"
        known_by = KNOWN_BY[tells.knows] if tells.says else ""
        links.setdefault((says, known_by), []).append(f"[`{tells.event}`]({tells.source})")
    return [[titles, ", ".join(these), *how] for how, these in links.items()]


def _answer(provider: Provider, facts: OAuthFacts) -> str:
    if provider.probe is None:
        return "a refresh"
    return "a cheap call" if facts.probe_acquits else "a cheap call, which proves an end and not a life; a refresh"


def _rotation(facts: OAuthFacts) -> str:
    match facts.rotation:
        case "strict":
            return "each works once"
        case "grace":
            return f"rotate; the old one still works {_for(facts.reuse_grace_s)}"
        case _:
            return "stay"


def _for(seconds: int) -> str:
    if not seconds:
        return "for a while"
    return f"for {seconds // 86400} days" if seconds % 86400 == 0 else f"for {seconds} s"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (headers, ["---"] * len(headers), *rows)]
