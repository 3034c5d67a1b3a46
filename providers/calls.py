"""What a provider module says over HTTP, as values. The gateway sends them through its one way out (PROTOCOLS 8).

A module's calls (`identify`, `revoke`, `probe`, `mint`) are coroutines that are handed an `Http`; they know no socket,
no retry and no address, so a test hands them a script, and the gateway hands them its pinned, bounded client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson

from providers.errors import OddAnswer

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to a provider. Its repr shows neither headers nor body: they hold credentials."""

    method: str  # upper case
    url: str  # absolute, https
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    carries_client_secret: bool = False  # then only a host that the operator fixed may get it


@dataclass(frozen=True, slots=True)
class Response:
    """The whole answer. Its repr shows no body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # lower-case names
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.    Raises: OddAnswer, it is none (an HTML page of a proxy, say)."""
        try:
            whole = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise OddAnswer("not_json") from None
        if not isinstance(whole, dict):
            raise OddAnswer("not_an_object")
        return whole


class Http(Protocol):
    """The gateway's one way out, as a provider module sees it."""

    async def send(self, request: Request) -> Response:
        """Raises: Unreachable (no answer within the deadline), NotAllowed (the host is not this provider's)."""


def form(url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None, **more: Any) -> Request:
    """A POST of form fields that asks for JSON."""
    sent = {"content-type": FORM, "accept": "application/json", **(headers or {})}
    return Request("POST", url, sent, urlencode(fields).encode(), **more)


def bearer(method: str, url: str, token: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Request:
    """A call of the provider's API with an access token (RFC 6750)."""
    return Request(
        method, url, {"authorization": f"Bearer {token}", "accept": "application/json", **(headers or {})}, body
    )
