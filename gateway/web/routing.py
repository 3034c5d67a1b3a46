"""A route, declared. From one table of these come routing, validation, authentication, authorization, idempotency,
metrics and the OpenAPI document; a handler sees only what passed all of them.

    ROUTES = [
        Route("POST", "/v1/things", "things.write", make, "Make a thing", body=NewThing, answer=Thing, status=201,
              idempotent=True, errors=(Conflict,)),
    ]

    async def make(gateway: Gateway, call: Call[NewThing, NoQuery]) -> Thing: ...
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers

from gateway import ids
from gateway.access.keys import ApiKey
from gateway.errors import NotFound, Problem
from gateway.service import Gateway

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")


class Body(BaseModel):
    """A request's JSON: no unknown fields, no guessing of types (the text "5" is not the number 5)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class Query(BaseModel):
    """A request's query: no unknown parameters. One may repeat only where its field is a list."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class Answer(BaseModel):
    """An answer's JSON. Every field is always there."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NoQuery(Query):
    """Of routes that take no parameters."""


@dataclass(slots=True)  # not frozen, nor is `Sent`: that would treble the cost of making one
class Call(Generic[BodyT, QueryT]):
    """One request, validated and allowed. Its repr shows nothing that the client sent."""

    body: BodyT = field(repr=False)  # None where the route takes no body
    query: QueryT = field(repr=False)
    path: Mapping[str, str] = field(repr=False)  # by the names in the template
    key: ApiKey | None  # who asks; None only where the route is open
    now: datetime
    request_id: str
    headers: Headers = field(repr=False)  # the API key stands in them
    new_id: Callable[[], UUID]  # for what this call makes: the same again when an Idempotency-Key is tried again

    def id(self, name: str, prefix: str) -> UUID:
        """The id in the path under `name`.    Raises: NotFound, it is no id of that kind."""
        value = ids.parse(prefix, self.path[name])
        if value is None:
            raise NotFound()
        return value


@dataclass(slots=True)
class Sent:
    """A whole answer."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json(status: int, body: bytes) -> Sent:
    """An answer of JSON."""
    return Sent(status, body, JSON)


JSON = ((b"content-type", b"application/json"),)

Handler = Callable[[Gateway, Call[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path, what it takes and answers, and who may ask.

    `handler` returns an `answer` model, None (no content), a `Sent`, or a starlette `Response` for what is not JSON.

    A `direct` route is for the few that must be quick: it is found before the router looks through its templates (one
    parameter, no other template that fits), and its handler bounds its own waiting and keeps its own record, so nobody
    watches it wait or writes a log line for its successes.
    """

    method: str  # upper case; HEAD comes with GET by itself
    path: str  # a template: "/v1/connections/{connection_id}"
    action: str | None  # what a role must allow (gateway/access/roles.py); None: open to whoever reaches the listener
    handler: Handler
    summary: str  # one line for the document
    body: type[BaseModel] | None = None
    query: type[BaseModel] = NoQuery
    answer: type[BaseModel] | None = None
    status: int = 200
    errors: tuple[type[Problem], ...] = ()  # beside those that follow from the fields above
    idempotent: bool = False  # takes an Idempotency-Key
    direct: bool = False
    stream: bool = False  # answers without end: no time limit, no HEAD
    media: str = "application/json"
    most_bytes: int | None = None  # of a body, where more than a management call's usual limit is needed
    limit_s: float = 25.0  # the handler's time; a long poll needs more
    description: str = ""  # Markdown, for the document
    private: bool = field(default=False)  # left out of the document


def both(method: str, path: str) -> str:
    """How a route is called in logs and metrics."""
    return f"{method} {path}"
