"""Consumers over HTTP: lease partitions, commit what is done, see who lags."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from gateway.errors import Conflict, CursorGone, NotFound, StaleFence
from gateway.service import Gateway
from gateway.stream import consumers
from gateway.stream.cursor import parse
from gateway.web import paging
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Route

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}", re.ASCII)
Partition = Annotated[int, Field(ge=0, lt=consumers.PARTITIONS)]


class LeaseRequest(Body):
    worker: str = Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$", description="unique to this process")
    ttl_s: float = Field(30, ge=5, le=300, description="seconds until the lease ends unless renewed")
    release: list[Partition] = Field(default=[], max_length=64, description="partitions to give back")
    start: Literal["earliest", "latest"] = Field("earliest", description="where a consumer that is new begins")


class LeaveRequest(Body):
    worker: str = Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$", description="as it leased")


class LeasedPartition(Answer):
    partition: int
    fence: int
    cursor: str
    release: bool = Field(description="more than this worker's share: finish, commit, give back with the next lease")


class Lease(Answer):
    consumer: str
    worker: str
    ttl_s: float
    partitions: list[LeasedPartition]


class Done(Body):
    partition: Partition
    fence: int = Field(ge=0, lt=2**62)
    cursor: str = Field(max_length=100)


class CommitRequest(Body):
    partitions: list[Done] = Field(min_length=1, max_length=64)


class ResetRequest(Body):
    to: Literal["earliest", "latest"] | AwareDatetime = Field(
        description="`earliest`, `latest`, or a time: before the first event kept since"
    )


class ResetAnswer(Answer):
    cursor: str


class Consumer(Answer):
    name: str
    created_at: datetime
    cursor: str = Field(description="of the partition that is furthest behind")
    leased_partitions: int
    workers: list[str]
    lag_events: int = Field(description="an upper bound")
    lag_s: float = Field(description="age of the oldest event not yet done")


async def lease(gateway: Gateway, call: Call[LeaseRequest, NoQuery]) -> Lease:
    """Renew, give back, and take a fair share. The consumer is made by its first lease."""
    asked, name = call.body, _theirs(call)
    held = await consumers.lease(
        gateway.regions.home.database, name, asked.worker, asked.ttl_s, asked.release, asked.start
    )
    return Lease(
        consumer=name,
        worker=asked.worker,
        ttl_s=asked.ttl_s,
        partitions=[
            LeasedPartition(partition=p.partition, fence=p.fence, cursor=str(p.cursor), release=p.release) for p in held
        ],
    )


async def leave(gateway: Gateway, call: Call[LeaveRequest, NoQuery]) -> None:
    """Give back everything at once and want nothing more; the others need not wait for the lease to end."""
    await consumers.leave(gateway.regions.home.database, _theirs(call), call.body.worker)


async def commit(gateway: Gateway, call: Call[CommitRequest, NoQuery]) -> None:
    """Move cursors forward. Valid ones are moved even if others are stale (409 lists those)."""
    done = [consumers.Commit(d.partition, d.fence, parse(d.cursor)) for d in call.body.partitions]
    await consumers.commit(gateway.regions.home.database, _theirs(call), done)


async def reset(gateway: Gateway, call: Call[ResetRequest, NoQuery]) -> ResetAnswer:
    """Put every partition at a time; all leases end."""
    return ResetAnswer(cursor=str(await consumers.reset(gateway.regions.home.database, _theirs(call), call.body.to)))


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Consumer:
    async with gateway.regions.home.database.acquire() as db:
        found = await consumers.states(db, _name(call))
    if not found:
        raise NotFound("no such consumer")
    return _consumer(found[0])


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Consumer]:
    """Consumers by name."""
    position = paging.after(call.query, "consumers")
    async with gateway.regions.home.database.acquire() as db:
        found = await consumers.states(db, after=None if position is None else position[0], limit=call.query.limit + 1)
    return paging.cut(call.query, "consumers", found, lambda state: state.name, _consumer)


async def remove(gateway: Gateway, call: Call[None, NoQuery]) -> None:
    """Forget a consumer and its cursors."""
    await consumers.remove(gateway.regions.home.database, _theirs(call))


def _name(call: Call[Any, Any]) -> str:
    if not NAME.fullmatch(call.path["name"]):
        raise invalid("path.name", "must be 1 to 100 of `a-z 0-9 _ . -`, beginning with a letter or digit")
    return call.path["name"]


def _theirs(call: Call[Any, Any]) -> str:
    """The name of a consumer that callers may work with.    Raises: Invalid, Conflict."""
    name = _name(call)
    if name.startswith(consumers.OURS):
        raise Conflict(f"Consumers whose names begin with `{consumers.OURS}` are Posthouse's own: choose another name.")
    return name


def _consumer(state: consumers.ConsumerState) -> Consumer:
    return Consumer(
        name=state.name,
        created_at=state.created_at,
        cursor=str(state.cursor),
        leased_partitions=state.leased,
        workers=list(state.workers),
        lag_events=state.lag_events,
        lag_s=state.lag_s,
    )


ROUTES = [
    Route(
        "POST", "/v1/consumers/{name}/lease", "consumers:write", lease, "Lease partitions for a worker",
        body=LeaseRequest, answer=Lease, errors=(Conflict,),
    ),
    Route(
        "POST", "/v1/consumers/{name}/leave", "consumers:write", leave, "A worker ends: give back all it holds",
        body=LeaveRequest, status=204, errors=(Conflict,),
    ),
    Route(
        "POST", "/v1/consumers/{name}/commit", "consumers:write", commit, "Commit what is done",
        body=CommitRequest, status=204, errors=(StaleFence, CursorGone, Conflict),
    ),
    Route(
        "POST", "/v1/consumers/{name}/reset", "consumers:write", reset, "Go back (or forward) to a time",
        body=ResetRequest, answer=ResetAnswer, errors=(NotFound, Conflict),
    ),
    Route("GET", "/v1/consumers", "consumers:read", list_all, "Consumers and their lag", query=PageQuery, answer=Page[Consumer]),
    Route(
        "GET", "/v1/consumers/{name}", "consumers:read", show, "One consumer and its lag",
        answer=Consumer, errors=(NotFound,),
    ),
    Route(
        "DELETE", "/v1/consumers/{name}", "consumers:write", remove, "Forget a consumer",
        status=204, errors=(NotFound, Conflict),
    ),
]  # fmt: skip
