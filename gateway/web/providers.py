"""Providers over HTTP: which there are, what each can tell of grants, and how they are; release one by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from gateway.breakers import store
from gateway.breakers.ways import Kind
from gateway.connections import conditions
from gateway.connections.conditions import ErrorClass
from gateway.errors import Conflict, NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.paging import Page, PageQuery
from gateway.web.routing import Answer, Call, NoQuery, Route
from providers.registry import Provider as Module
from providers.registry import all_providers
from providers.signals import Knows, Says, Tells


class Told(Answer):
    """One kind of delivery that can say something about grants."""

    event: str = Field(description="the tail of its type: `posthouse.delivery.{provider}.{event}`")
    says: list[Says] = Field(description="none: of the kind that could, and does not")
    knows: Knows = Field(
        description="how it is known to be about the grant as it is now; `nothing`: contested until a check has decided"
    )
    source: str = Field(description="where the provider documents it")


class Condition(Answer):
    """How a provider is in one region."""

    region: str
    name: str = Field(
        description="the provider's, or `provider:integration` where each integration has a server of its own"
    )
    degraded_since: datetime | None = Field(description="null: it is well")
    error_class: ErrorClass | None = Field(description="of the answers that exceeded what is usual")
    failures: int = Field(description="since then (or the last time), that moved no connection")
    passed: int = Field(description="checks that passed, one after the other: three release it")
    waiting: int = Field(description="grants that are checked again once it is well")


class Breaker(Answer):
    """A kind of call at one host that is not made just now, in one region. Tokens that have not expired are served all the same."""

    region: str
    kind: Kind
    host: str | None
    why: Literal["failing", "limited"] = Field(
        description="`failing`: no usable answers; `limited`: it said when to come again"
    )
    code: str | None = Field(description="of the last failure")
    since: datetime
    canary_at: datetime = Field(description="when one call is tried; of a rate limit, its end")
    passed: int = Field(description="tries that passed, one after the other: three make it well")
    failures: int


class Provider(Answer):
    """A provider, and how it is."""

    name: str
    title: str
    docs_url: str
    abilities: list[str]
    tells: list[Told]
    conditions: list[Condition] = Field(description="none: no answer of it ever counted against a grant")
    breakers: list[Breaker] = Field(description="what is not called just now; none: everything is")


class Released(Answer):
    """What an operator's word has released."""

    name: str
    regions: list[str]


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Provider]:
    """Every provider that this version knows, by name."""
    position = paging.after(call.query, "providers")
    known = all_providers()
    names = sorted(name for name in known if position is None or name > position[0])
    how, shut = await _conditions(gateway), await _breakers(gateway)
    return paging.cut(
        call.query,
        "providers",
        names,
        lambda name: name,
        lambda name: _shown(known[name], how.get(name, ()), shut.get(name, ())),
    )


async def release(gateway: Gateway, call: Call[None, NoQuery]) -> Released:
    """Say that a provider is well, in every region: grants that waited are checked again within five minutes.

    Three passing checks do the same by themselves. If everybody's still fail, it is degraded again soon.
    """
    name = call.path["name"]
    if name.partition(":")[0] not in all_providers():
        raise NotFound("There is no such provider.")
    regions = [
        region.name for region in gateway.regions if await conditions.released(region.database, name, call.new_id())
    ]
    if not regions:
        raise Conflict("Nothing is known against it: it is well.")
    return Released(name=name, regions=regions)


async def _conditions(gateway: Gateway) -> Mapping[str, Sequence[Condition]]:
    """By provider."""
    found: dict[str, list[Condition]] = {}
    for region in sorted(gateway.regions, key=lambda region: region.name):
        for one in await conditions.all_of(region.database):
            shown = Condition(
                region=region.name, name=one.provider, degraded_since=one.degraded_since, error_class=one.error_class,
                failures=one.failures, passed=one.passed, waiting=one.waiting,
            )  # fmt: skip
            found.setdefault(one.provider.partition(":")[0], []).append(shown)
    return found


async def _breakers(gateway: Gateway) -> Mapping[str, Sequence[Breaker]]:
    """By provider."""
    found: dict[str, list[Breaker]] = {}
    for region in sorted(gateway.regions, key=lambda region: region.name):
        for one in await store.all_open(region.database):
            if one.why != "misconfigured":
                shown = Breaker(
                    region=region.name, kind=one.kind, host=one.host, why=one.why, code=one.code, since=one.since,
                    canary_at=one.canary_at, passed=one.passed, failures=one.failures,
                )  # fmt: skip
                found.setdefault(one.provider, []).append(shown)
    return found


def _shown(provider: Module, how: Sequence[Condition], shut: Sequence[Breaker]) -> Provider:
    facts = provider.facts
    return Provider(
        name=facts.name,
        title=facts.title,
        docs_url=facts.docs_url,
        abilities=list(provider.abilities),
        tells=[_told(tells) for tells in facts.signals],
        conditions=list(how),
        breakers=list(shut),
    )


def _told(tells: Tells) -> Told:
    return Told(event=tells.event, says=list(tells.says), knows=tells.knows, source=tells.source)


ROUTES = [
    Route(
        "GET", "/v1/providers", "providers:read", list_all, "Providers, what they can tell, and how they are",
        query=PageQuery, answer=Page[Provider],
    ),
    Route(
        "POST", "/v1/providers/{name}/release", "providers:write", release, "Say that a provider is well again",
        answer=Released, errors=(NotFound, Conflict),
    ),
]  # fmt: skip
