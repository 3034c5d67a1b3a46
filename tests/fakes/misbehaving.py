"""Ways in which a provider's endpoint can go wrong. Each is a coroutine that is handed one `Turn`: one request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]
GONE = object()  # in `changed`: the member is not there
HUGE_BYTES = 100 * 1024 * 1024


@dataclass(slots=True)
class Gate:
    """Where requests are held until a test lets them go: no test waits for time."""

    held: int = 0
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    _round: int = 0

    async def wait(self) -> None:
        """Hold one request."""
        async with self._moved:
            mine, self.held = self._round, self.held + 1
            self._moved.notify_all()
            try:
                await self._moved.wait_for(lambda: self._round != mine)
            finally:
                self.held -= 1

    async def until(self, held: int) -> None:
        """Wait until so many are held."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.held >= held)

    async def open(self) -> None:
        """Let all that are held go on; later ones are held again."""
        async with self._moved:
            self._round += 1
            self._moved.notify_all()


@dataclass(slots=True)
class Turn:
    """One request, and what can be done with it."""

    app: App
    scope: Any
    body: bytes
    receive: Any
    send: Any
    gate: Gate

    async def proceed(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Let the real provider act; its answer is not sent."""
        start: dict[str, Any] = {}
        parts: list[bytes] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": self.body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(self.scope, receive, send)
        return start["status"], start["headers"], b"".join(parts)

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send an answer."""
        kept = [(name, value) for name, value in headers if name != b"content-length"]
        kept.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": kept})
        await self.send({"type": "http.response.body", "body": body})

    async def json(self, status: int, value: object, *more: tuple[bytes, bytes]) -> None:
        """Send a JSON answer."""
        await self.answer(status, [(b"content-type", b"application/json"), *more], json.dumps(value).encode())

    async def cut(self) -> None:
        """Close the connection without another byte."""
        self.send.__self__.transport.abort()  # uvicorn's own send: ASGI has no word for it
        while (await self.receive())["type"] != "http.disconnect":
            pass


How = Callable[[Turn], Awaitable[None]]


async def html(turn: Turn) -> None:
    """A proxy's page, with status 200."""
    await turn.answer(200, [(b"content-type", b"text/html")], b"<!doctype html><h1>Please log in to the network</h1>")


async def server_error(turn: Turn) -> None:
    """500, and no JSON."""
    await turn.answer(500, [(b"content-type", b"text/plain")], b"Internal Server Error")


async def empty(turn: Turn) -> None:
    """200 and nothing."""
    await turn.answer(200, [], b"")


async def hang(turn: Turn) -> None:
    """No answer, and nothing done, until the test opens the gate or the caller goes; then the connection is closed."""
    await _until(turn)
    await turn.cut()


async def close(turn: Turn) -> None:
    """The connection is closed; nothing was done."""
    await turn.cut()


async def answer_lost(turn: Turn) -> None:
    """The provider acts (a refresh token is spent), and the connection is closed before its answer."""
    await turn.proceed()
    await turn.cut()


async def answer_hangs(turn: Turn) -> None:
    """The provider acts, and its answer does not come."""
    await turn.proceed()
    await _until(turn)
    await turn.cut()


async def slow(turn: Turn) -> None:
    """Nothing happens until the test opens the gate; then all is well."""
    await _until(turn)
    await turn.answer(*await turn.proceed())


async def slow_answer(turn: Turn) -> None:
    """The provider acts at once; its answer comes when the test opens the gate."""
    made = await turn.proceed()
    await _until(turn)
    await turn.answer(*made)


async def huge(turn: Turn) -> None:
    """A body of 100 MB, for as long as somebody reads it."""
    await turn.send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    chunk = b'{"access_token": "' + b"x" * 65536
    for _ in range(HUGE_BYTES // len(chunk)):
        await turn.send({"type": "http.response.body", "body": chunk, "more_body": True})
    await turn.send({"type": "http.response.body", "body": b""})


def error(code: str, status: int = 400, **more: object) -> How:
    """An OAuth error; the provider does nothing."""

    async def how(turn: Turn) -> None:
        await turn.json(status, {"error": code, "error_description": "hunter2: a text that nobody shall quote", **more})

    return how


def error_in_200(code: str = "invalid_grant", **more: object) -> How:
    """An error under status 200, as Slack and GitHub do it."""
    return error(code, 200, ok=False, **more)


def rate_limited(retry_after_s: int = 7) -> How:
    """429."""

    async def how(turn: Turn) -> None:
        await turn.json(429, {"error": "slow_down"}, (b"retry-after", str(retry_after_s).encode()))

    return how


def status(code: int, body: bytes = b"") -> How:
    """Any status."""

    async def how(turn: Turn) -> None:
        await turn.answer(code, [(b"content-type", b"text/plain")], body)

    return how


def redirect(to: str, code: int = 307) -> How:
    """Go elsewhere with your secrets, please."""

    async def how(turn: Turn) -> None:
        await turn.answer(code, [(b"location", to.encode())], b"")

    return how


def changed(**members: object) -> How:
    """The provider acts; members of its JSON answer are other ones, or `GONE`."""

    async def how(turn: Turn) -> None:
        code, headers, body = await turn.proceed()
        told = {**json.loads(body), **members}
        await turn.answer(code, headers, json.dumps({n: v for n, v in told.items() if v is not GONE}).encode())

    return how


BY_NAME: dict[str, How] = {
    "html": html,
    "server_error": server_error,
    "empty": empty,
    "hang": hang,
    "close": close,
    "answer_lost": answer_lost,
    "answer_hangs": answer_hangs,
    "slow": slow,
    "slow_answer": slow_answer,
    "huge": huge,
    "invalid_client": error("invalid_client", 401),
    "invalid_grant": error("invalid_grant"),
    "error_in_200": error_in_200(),
    "rate_limited": rate_limited(),
    "no_expires_in": changed(expires_in=GONE),
    "text_expires_in": changed(expires_in="3600"),
    "odd_expires_in": changed(expires_in="soon"),
    "no_access_token": changed(access_token=GONE),
    "number_for_token": changed(access_token=42),
    "no_refresh_token": changed(refresh_token=GONE, refresh_token_expires_in=GONE),
    "no_scope": changed(scope=GONE),
    "fewer_scopes": changed(scope="profile"),
    "more_scopes": changed(scope="profile messages.read messages.write contacts.read admin"),
}


async def _until(turn: Turn) -> None:
    """Until the gate opens, or the caller has gone."""
    gone = asyncio.ensure_future(_gone(turn.receive))
    opened = asyncio.ensure_future(turn.gate.wait())
    try:
        await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (gone, opened):
            task.cancel()
        await asyncio.gather(gone, opened, return_exceptions=True)


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
