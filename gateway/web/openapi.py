"""OpenAPI 3.1, generated from the table of routes and the very models that validate."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from gateway import ids
from gateway.errors import (
    Forbidden,
    IdempotencyInFlight,
    IdempotencyMismatch,
    Invalid,
    NotFound,
    Problem,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from gateway.web import fields, problems
from gateway.web.routing import NoQuery, Route

REF = "#/components/schemas/{model}"
Mode = Literal["validation", "serialization"]


class FieldError(BaseModel):
    """One thing that does not fit: where (`body.accounts.0`), what, and a stable name for the kind."""

    where: str
    message: str
    type: str


class ProblemDocument(BaseModel, extra="allow"):
    """RFC 9457. `type` is stable: tell problems apart by it, never by `title` or `detail`."""

    type: str
    title: str
    status: int
    detail: str | None = None
    request_id: str
    errors: list[FieldError] | None = Field(None, description="of `invalid`: what does not fit")


# What a name in a path template stands for.
ID = "[0-9a-f]{32}$"
PARAMETERS: dict[str, dict[str, Any]] = {
    "tenant_id": {"schema": {"type": "string", "pattern": fields.TENANT_ID}, "description": "the platform's own id"},
    "connection_id": {"schema": {"type": "string", "pattern": f"^{ids.CONNECTION}_{ID}"}},
    "endpoint_id": {"schema": {"type": "string", "pattern": f"^{ids.ENDPOINT}_{ID}"}},
    "session_id": {"schema": {"type": "string", "pattern": f"^{ids.SESSION}_{ID}"}},
    "key_id": {"schema": {"type": "string", "pattern": f"^{ids.KEY}_{ID}"}},
    "integration": {"schema": {"type": "string", "pattern": fields.INTEGRATION_NAME}, "description": "its name"},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes this POST safe to send again for 24 hours: the same answer comes back, "
    "with `Idempotency-Replayed: true`.",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
}
INTRODUCTION = """\
The private face of Posthouse: connections, hook endpoints, the event stream.

Lists take `limit` and `cursor` and answer `items` and `next_cursor`. Every error is `application/problem+json` with a
stable `type`. Every answer carries `X-Request-Id`; a plain one that you send is kept. `traceparent` goes into the logs.
"""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document for a table of routes."""
    shown = [route for route in routes if not route.private]
    names, schemas = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Posthouse", "version": version("posthouse"), "description": INTRODUCTION},
        "servers": [{"url": "/", "description": "the private listener"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "an API key, `ph_…`, as the bearer token"}
            },
        },
    }


def _schemas(routes: Sequence[Route]) -> tuple[dict[tuple[type[BaseModel], Mode], Any], dict[str, Any]]:
    """A reference for each model and direction, and the schemas they refer to."""
    wanted: dict[tuple[type[BaseModel], Mode], None] = {(ProblemDocument, "serialization"): None}
    for route in routes:
        if route.body is not None:
            wanted[route.body, "validation"] = None
        if route.answer is not None:
            wanted[route.answer, "serialization"] = None
    references, definitions = models_json_schema(list(wanted), ref_template=REF)
    return {(model, mode): references[model, mode] for model, mode in wanted}, definitions["$defs"]


def _operation(route: Route, names: dict[tuple[type[BaseModel], Mode], Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, names),
    }
    if description := route.description or inspect.getdoc(route.handler) or "":
        made["description"] = description
    if route.action is None:
        made["security"] = []
    else:
        made["x-posthouse-action"] = route.action
    if route.idempotent:
        made["parameters"].append(IDEMPOTENCY_KEY)
    if route.body is not None:
        schema = names[route.body, "validation"]
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return made


def operation_id(route: Route) -> str:
    """`connections.create`-like names: the handler's room and its own."""
    room = route.handler.__module__.rpartition(".")[2]
    return f"{room}.{route.handler.__name__}"


def _tag(route: Route) -> str:
    words = [part for part in route.path.split("/") if part and not part.startswith("{")]
    return words[1] if words[0] == "v1" and len(words) > 1 else "operating"


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **PARAMETERS.get(name, {"schema": {"type": "string"}})}
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is NoQuery:
        return []
    schema = route.query.model_json_schema(ref_template=REF)
    assert "$defs" not in schema, "a query is made of plain fields"
    made = []
    for name, field in schema["properties"].items():
        field.pop("title", None)
        described = field.pop("description", None)
        if field.get("default", 0) is None:
            del field["default"]
        # A parameter that is not sent is how a query says null.
        choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            field = {**{k: v for k, v in field.items() if k != "anyOf"}, **choices[0]}
        made.append(
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": field}
            | ({"description": described} if described else {})
        )
    return made


def _responses(route: Route, names: dict[tuple[type[BaseModel], Mode], Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.answer is not None:
        good["content"] = {route.media: {"schema": names[route.answer, "serialization"]}}
    elif route.status != 204:
        good["content"] = {route.media: {"schema": {"type": "string"}}}
    if route.answer is not None and route.stream:
        closing = {"type": "object", "required": ["cursor"], "properties": {"cursor": {"type": "string"}}}
        said = [names[route.answer, "serialization"], closing, names[ProblemDocument, "serialization"]]
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": said}}
        fields_of = {"id": {"type": "string"}, "event": {"type": "string"}, "data": data}
        good["content"] = {route.media: {"schema": {"type": "object", "properties": fields_of}}}
    found: dict[str, Any] = {str(route.status): good}
    by_status: dict[int, list[type[Problem]]] = {}
    for kind in sorted(errors_of(route), key=lambda kind: (kind.status, kind.code)):
        by_status.setdefault(kind.status, []).append(kind)
    for status, kinds in by_status.items():
        found[str(status)] = _problem_response(kinds, names)
    return found


def _problem_response(kinds: list[type[Problem]], names: dict[tuple[type[BaseModel], Mode], Any]) -> dict[str, Any]:
    example_id = "req_01930000000070008000000000000000"
    return {
        "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds),
        "content": {
            problems.MEDIA: {
                "schema": names[ProblemDocument, "serialization"],
                "examples": {kind.code: {"value": kind().body(example_id)} for kind in kinds},
            }
        },
    }


def errors_of(route: Route) -> set[type[Problem]]:
    """Every problem that this route may answer with: its own, and those that follow from what it takes."""
    found: set[type[Problem]] = {*route.errors, Unavailable, Invalid, problems.Malformed}
    if route.action is not None:
        found |= {Unauthenticated, Forbidden}
    if route.body is not None:
        found |= {TooLarge, problems.UnsupportedMedia}
    if route.idempotent:
        found |= {IdempotencyInFlight, IdempotencyMismatch}
    if "{" in route.path:
        found.add(NotFound)
    return found
