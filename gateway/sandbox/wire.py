"""Requests read strictly, answers made: what all faces of the sandbox share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse

from gateway.sandbox.oauth import Refused

MOST_BYTES = 64 * 1024
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache", "referrer-policy": "no-referrer"}


async def body(request: Request) -> bytes:
    """At most 64 KiB.    Raises: Refused."""
    whole = b""
    async for chunk in request.stream():
        whole += chunk
        if len(whole) > MOST_BYTES:
            raise Refused("invalid_request", "The body is too large.", 413)
    return whole


async def form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, in their order.    Raises: Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Refused("invalid_request", "The body must be application/x-www-form-urlencoded.", 415)
    try:
        text = (await body(request)).decode()
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Refused("invalid_request", "The form cannot be read.") from None


def query(request: Request) -> list[tuple[str, str]]:
    """The parameters of the URL, in their order.    Raises: Refused."""
    try:
        return parse_qsl(request.url.query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Refused("invalid_request", "The query cannot be read.") from None


def once(fields: list[tuple[str, str]]) -> dict[str, str]:
    """Fields by name; an empty one is as one that is not there.    Raises: Refused, one came twice (RFC 6749, 3.1)."""
    found: dict[str, str] = {}
    for name, value in fields:
        if name in found:
            raise Refused("invalid_request", f"{name[:50]} came twice.")
        found[name] = value
    return {name: value for name, value in found.items() if value}


async def document(request: Request) -> dict[str, Any]:
    """A JSON object.    Raises: Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("invalid_request", "The body must be application/json.", 415)
    try:
        whole = json.loads(await body(request))
        json.dumps(whole, ensure_ascii=False).encode()  # half a surrogate pair cannot be sent on
    except (ValueError, RecursionError):
        raise Refused("invalid_request", "The body is no JSON.") from None
    if not isinstance(whole, dict):
        raise Refused("invalid_request", "The body must be a JSON object.")
    return whole


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """JSON that no cache keeps."""
    return JSONResponse(value, status, {**NO_STORE, **(headers or {})})


def refused(error: Refused, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """RFC 6749 section 5.2."""
    return answer({"error": error.code, "error_description": error.why}, error.status, headers)


def back(url: str, parameters: Mapping[str, str | None]) -> RedirectResponse:
    """To the client's redirect URI, with parameters behind those it has."""
    told = urlencode({name: value for name, value in parameters.items() if value is not None})
    return RedirectResponse(url + ("&" if "?" in url else "?") + told, 303, dict(NO_STORE))
