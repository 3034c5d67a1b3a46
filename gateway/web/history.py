"""The history of a connection over HTTP: what every signal about it led to, with its cause and evidence."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gateway import ids
from gateway.connections import history
from gateway.connections.history import Kept, Outcome, Source
from gateway.errors import NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.connections import State, locate
from gateway.web.paging import Page, PageQuery
from gateway.web.routing import Answer, Call, Route

OUTCOMES = (
    "`moved` the state; `stays`: nothing that shows; `stale`: about an earlier generation, or about a time before the last "
    "proof that it lived; `contested`: of unknown generation, a check was asked for; `refuted`: the check found it untrue; "
    "`guarded`: everybody's failed, so it went onto the provider's condition; `asked`: weak, a check was asked for; "
    "`illegal`: it cannot be said of a grant in that state"
)


class HistoryEntry(Answer):
    """One signal, and what it led to."""

    at: datetime
    access_profile: str | None = Field(description="of the grant; null: the connection itself, which has no grants")
    signal: str
    outcome: Outcome = Field(description=OUTCOMES)
    cause: str = Field(description="a stable word: `tokens_revoked`, `refresh_refused`, `connect` …")
    source: Source
    evidence: str | None = Field(description="the event of the stream that says so, while the stream keeps it")
    code: str | None = Field(description="the provider's own, where it is a plain word")
    occurred_at: datetime | None = Field(description="by the provider's clock, as far as it is known")
    generation: int | None = Field(description="of the grant when it was heard")
    token_version: int | None
    state_before: State
    state_after: State


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[HistoryEntry]:
    """Newest first, also of a connection that is closed; kept for `POSTHOUSE_HISTORY_DAYS`."""
    region, found = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    kind = f"history {found.id.hex}"  # a cursor of another connection's history is none of this one's
    before = paging.uuid_after(call.query, kind)
    kept = await history.page(region.database, found.id, before=before, limit=call.query.limit + 1)
    return paging.cut(call.query, kind, kept, lambda one: one.entry.id.hex, _shown)


def _shown(kept: Kept) -> HistoryEntry:
    entry = kept.entry
    return HistoryEntry(
        at=kept.at,
        access_profile=entry.access_profile,
        signal=entry.signal,
        outcome=entry.outcome,
        cause=entry.cause,
        source=entry.source,
        evidence=None if entry.evidence is None else ids.show(ids.EVENT, entry.evidence),
        code=entry.code,
        occurred_at=entry.occurred_at,
        generation=entry.generation,
        token_version=entry.token_version,
        state_before=entry.state_before,
        state_after=entry.state_after,
    )


ROUTES = [
    Route(
        "GET", "/v1/connections/{connection_id}/history", "connections:read", list_all, "What signals about it led to",
        query=PageQuery, answer=Page[HistoryEntry], errors=(NotFound,),
    ),
]  # fmt: skip
