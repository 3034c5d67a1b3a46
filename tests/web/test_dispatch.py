"""Routes from packages above this one, and handlers that fail in every way there is."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from gateway.errors import Conflict
from gateway.service import Gateway
from gateway.web.app import ROUTES, private_app
from gateway.web.routing import Call, Route
from tests.web.conftest import problem, served


async def refuse(gateway: Gateway, call: Call[Any, Any]) -> None:
    """A socket error in a handler is a dependency's fault, not the client's end of the line."""
    raise ConnectionRefusedError("hunter2")


async def stumble(gateway: Gateway, call: Call[Any, Any]) -> None:
    raise ValueError("hunter2")


async def nothing(gateway: Gateway, call: Call[Any, Any]) -> None:
    return None


async def text(gateway: Gateway, call: Call[Any, Any]) -> Response:
    return PlainTextResponse(call.path["word"], headers={"x-more": "1"})


async def break_off(gateway: Gateway, call: Call[Any, Any]) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("hunter2")

    return StreamingResponse(parts(), media_type="text/event-stream")


async def never(gateway: Gateway, call: Call[Any, Any]) -> None:
    raise Conflict("No.", retry_after_s=3, more="a member")


MORE = [
    Route("GET", "/x/refuse", None, refuse, ""),
    Route("GET", "/x/stumble", None, stumble, ""),
    Route("POST", "/x/nothing", None, nothing, "", status=204),
    Route("GET", "/x/text/{word}", None, text, "", media="text/plain"),
    Route("GET", "/x/broken", None, break_off, "", stream=True, media="text/event-stream"),
    Route("GET", "/x/never", None, never, ""),
]


async def test_every_way_to_fail_has_its_answer(gateway: Gateway, lines: io.BytesIO) -> None:
    """503 for a dependency, 500 for a fault, the problem itself; never the words of a foreign exception."""
    async with served(gateway, *MORE) as api:
        away = await api("GET", "/x/refuse", key=None)
        problem(away, 503, "unavailable")
        assert away.headers["retry-after"] == "2"
        problem(await api("GET", "/x/stumble", key=None), 500, "internal")
        never = await api("GET", "/x/never", key=None)
        assert problem(never, 409, "conflict")["more"] == "a member"
        assert never.headers["retry-after"] == "3"
        done = await api("POST", "/x/nothing", key=None)
        assert (done.status_code, done.content) == (204, b"")
        assert "content-length" not in done.headers
        plain = await api("GET", "/x/text/hi", key=None)
        assert (plain.text, plain.headers["x-more"], plain.headers["x-content-type-options"]) == ("hi", "1", "nosniff")
        head = await api("HEAD", "/x/text/hi", key=None)
        assert (head.content, head.headers["content-length"]) == (b"", "2")
        with pytest.raises(httpx.RemoteProtocolError):
            await api("GET", "/x/broken", key=None)
        assert (await api("GET", "/healthz", key=None)).status_code == 200
        written = lines.getvalue().decode()
        assert '"http.broken"' in written
        assert "hunter2" not in written


def test_a_path_belongs_to_one_room(gateway: Gateway) -> None:
    """Two routes for one method and path are a mistake that a start finds."""
    with pytest.raises(ValueError, match="two routes"):
        private_app(gateway, [ROUTES[0]])
