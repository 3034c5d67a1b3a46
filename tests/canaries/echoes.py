"""A provider that says back what it was sent, in every way an answer can be wrong: the worst that can be quoted."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, quote, unquote_plus

from tests.fakes.misbehaving import How, Turn

HTML, JSON, TEXT = ((b"content-type", kind) for kind in (b"text/html", b"application/json", b"text/plain"))


def heard(turn: Turn) -> str:
    """What the caller sent: authorization, in the open, and the body."""
    sent = dict(turn.scope["headers"]).get(b"authorization", b"").decode("latin-1")
    try:
        sent += " " + unquote_plus(base64.b64decode(sent.partition(" ")[2], validate=True).decode())
    except ValueError:
        pass  # a bearer token, which stands there as it is
    return f"{sent} {unquote_plus(turn.body.decode('latin-1'))} {turn.scope['path']}"


def _json(status: int, *names: str) -> How:
    async def how(turn: Turn) -> None:
        told = {"error": "invalid_request", "error_description": heard(turn), "ok": False}
        await turn.answer(status, [JSON], json.dumps(told | dict.fromkeys(names, heard(turn))).encode())

    return how


def _plain(status: int, kind: tuple[bytes, bytes], *header_names: bytes) -> How:
    async def how(turn: Turn) -> None:
        told = [(name, quote(heard(turn)).encode()) for name in header_names]
        await turn.answer(status, [kind, *told], f"<h1>{heard(turn)}</h1>".encode())

    return how


async def bare(turn: Turn) -> None:
    """An error code that is a secret itself, and nothing else: in lower-case hex it looks much like a word."""
    sent = parse_qs(turn.body.decode("latin-1"))
    found = next((sent[name][0] for name in ("refresh_token", "token", "code") if name in sent), heard(turn))
    await turn.answer(400, [JSON], json.dumps({"error": found}).encode())


async def elsewhere(turn: Turn) -> None:
    """A redirect that has it all in its query."""
    where = b"http://127.0.0.1:9/?sent=" + quote(heard(turn)).encode()
    await turn.answer(307, [(b"location", where)], b"")


async def odd_tokens(turn: Turn) -> None:
    """The provider acts; in its answer, what should be short words are what it was sent."""
    status, headers, body = await turn.proceed()
    told = {**json.loads(body), "token_type": heard(turn), "expires_in": heard(turn), "id_token": heard(turn)}
    await turn.answer(status, headers, json.dumps(told).encode())


async def hung_up(turn: Turn) -> None:
    """Half an answer."""
    await turn.send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99999"), JSON]})
    await turn.send({"type": "http.response.body", "body": heard(turn).encode(), "more_body": True})
    await turn.cut()


ECHOES: dict[str, How] = {
    "400, described": _json(400),
    "400, as the error": _json(400, "error", "error_uri"),
    "400, a secret as the code": bare,
    "401, described": _json(401),
    "200 with an error": _json(200, "error"),
    "HTML under 200": _plain(200, HTML),
    "500": _plain(500, TEXT, b"www-authenticate", b"x-error"),
    "429, by when": _plain(429, TEXT, b"retry-after"),
    "a redirect": elsewhere,
    "half an answer": hung_up,
}
