"""Nothing secret reaches a log line: not by name, not by shape, not inside an object, not through an exception."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway import logs, redaction
from gateway.errors import SetupError, Unavailable
from gateway.vault.keyring import generate
from providers.contract import Trust


class Lines:
    """What was written, as text and as objects."""

    def __init__(self) -> None:
        self.stream = io.BytesIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def last(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Logs as production writes them."""
    made = Lines()
    logs.configure("json", "debug", made.stream)
    yield made
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = [h for h in logging.getLogger().handlers if not isinstance(h, logs.Foreign)]


log = structlog.get_logger()

SECRETS = {
    "our API key": "ph_abcdefgh_" + "Q" * 43,
    "Standard Webhooks secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "bearer": "Bearer abc.def-ghi",
    "basic": "basic dXNlcjpwYXNz",
    "Slack bot": "xoxb-123-456-abcDEF",
    "Slack rotating": "xoxe.xoxp-1-Mi0yLTEyMz",
    "Slack app": "xapp-1-A1-2-abc",
    "GitHub": "ghp_" + "a1" * 18,
    "GitLab": "glpat-abcdefghij0123456789",
    "Stripe": "sk_live_abcdefgh12345678",
    "Google": "ya29.a0AfH6SMBx-y",
    "JWT": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "DSN": "postgresql://post:hunter2@db.internal:5432/posthouse",
    "DSN with odd password": "postgres://post:hun:te@r/2@db/posthouse",
    "pair": "connect failed: password=hunter2 host=db",
    "PEM": "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
}
PIECES = ("Q" * 43, "MfKQ", "abc.def", "dXNl", "123-456", "xoxp-1", "A1-2", "a1a1", "abcdefghij", "live_a", "a0AfH", "sdWI", "hunter2", "hun:te", "te@r", "MIIE")  # fmt: skip


@pytest.mark.parametrize("what", SECRETS)
def test_text_shaped_like_a_credential_is_cut_wherever_it_stands(lines: Lines, what: str) -> None:
    """In a value, in the middle of a sentence, in a list, as the event itself."""
    secret = SECRETS[what]
    log.info("x", url=secret, note=f"it said {secret} and went", several=[secret, "fine"])
    log.info(f"odd {secret}")
    assert not [piece for piece in PIECES if piece in lines.text], lines.text
    assert "fine" in lines.text


def test_a_keys_prefix_stays_so_that_it_can_be_found(lines: Lines) -> None:
    """The beginning is not secret; it is how people tell keys apart."""
    log.info("x", key=SECRETS["our API key"])
    assert lines.last["key"] == "ph_abcdefgh_[redacted]"


def test_names_that_speak_of_secrets_hide_any_text_but_no_number(lines: Lines) -> None:
    """`token_version=7` is a figure; `token="7"` is a token."""
    log.info("x", token="hunter2", client_secret="hunter2", Authorization="hunter2", body="hunter2", api_key=["hunter2"],
             signature=b"hunter2", set_cookie="hunter2", token_version=7, secrets=2, password=None)  # fmt: skip
    assert "hunter2" not in lines.text
    assert (lines.last["token_version"], lines.last["secrets"], lines.last["password"]) == (7, 2, None)


def test_only_plain_types_come_through(lines: Lines) -> None:
    """An object shows its type: a repr may hold anything."""

    class Careless:
        def __repr__(self) -> str:
            return "hunter2"

        __str__ = __repr__

    class Colour(StrEnum):
        RED = "red"

    log.info("x", thing=Careless(), mapping={"a": "hunter2"}, raw=b"hunter2", wrapped=SecretStr("hunter2"),
             nested=[["hunter2"], {"hunter2"}, 1], keyring=generate(), trust=Trust(secrets=(b"hunter2",), endpoint=False),
             id=UUID(int=1), at=datetime(2026, 1, 1, tzinfo=UTC), colour=Colour.RED, nan=float("nan"), huge=10**40)  # fmt: skip
    assert "hunter2" not in lines.text
    assert lines.last["thing"] == "<Careless>"
    assert lines.last["mapping"] == "<dict>"
    assert lines.last["nested"] == ["…", "…", 1]
    assert (lines.last["colour"], lines.last["at"]) == ("red", "2026-01-01T00:00:00+00:00")
    assert (lines.last["nan"], lines.last["huge"]) == (None, str(10**40))


def test_a_line_stays_one_line(lines: Lines) -> None:
    """A line break, an escape sequence or half a surrogate pair from outside forges nothing."""
    for configured in ("json", "console"):
        logs.configure(configured, "debug", lines.stream)
        log.info("x\n{}", path="a\r\nb\x1b[2J\u2028\ud800")
    assert len(lines.text.splitlines()) == 2
    assert "\x1b" not in lines.text


def test_exceptions_show_types_and_places_and_neither_words_nor_locals(lines: Lines) -> None:
    """The text of a foreign exception quotes what it stumbled over."""

    def fail() -> None:
        local = "hunter2"
        try:
            raise ValueError(f"bad value {local}")
        except ValueError as error:
            raise ConnectionError("hunter2") from error

    try:
        fail()
    except ConnectionError as error:
        log.exception("failed")
        first = lines.last
        log.error("failed", exc_info=error)
        log.warning("failed", error=error)
        log.warning("failed", error=ExceptionGroup("hunter2", [KeyError("hunter2")]))
    assert "hunter2" not in lines.text
    assert first["error"] == "ConnectionError <- ValueError"
    assert [frame.rpartition(":")[0] for frame in first["frames"]] == [__name__, __name__]
    assert lines.last["error"] == "ExceptionGroup[KeyError]"


def test_our_own_words_are_shown(lines: Lines) -> None:
    """We write problems and set-up errors for readers; they are searched for credentials all the same."""
    log.warning("x", error=Unavailable("the control database is away"))
    assert lines.last["error"] == "gateway.errors.Unavailable(the control database is away)"
    log.warning("x", error=SetupError(f"cannot read {SECRETS['DSN']}"))
    assert "hunter2" not in lines.text


async def test_what_libraries_log_is_shown_as_its_template(lines: Lines) -> None:
    """Their arguments and reprs may hold paths, queries, and texts of exceptions."""
    logging.getLogger("aiohttp.client").warning("cannot connect to %s", "https://x/?token=hunter2")
    assert lines.last | {"at": 0} == {
        "at": 0,
        "level": "warning",
        "event": "cannot connect to %s",
        "logger": "aiohttp.client",
    }
    logging.getLogger("asyncpg").error("%d connections left", 3)
    assert lines.last["event"] == "3 connections left"
    logging.getLogger("uvicorn.access").error("GET /hooks/x?token=hunter2")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=ValueError("hunter2"))
    assert lines.last["error"] == "ValueError"

    async def fail() -> None:
        raise ValueError("hunter2")

    task = asyncio.create_task(fail(), name="hunter2")
    await asyncio.wait((task,))
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
    )
    assert (lines.last["event"], lines.last["error"]) == ("Task exception was never retrieved", "ValueError")
    logging.getLogger("asyncio").debug("below what we want of libraries: hunter2")
    assert "hunter2" not in lines.text


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                                               lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))))  # fmt: skip
def test_nothing_that_is_logged_can_break_a_line(event: dict[str, Any]) -> None:
    """Whatever is handed in, a line of JSON comes out."""
    made = logs._json(None, "", {"timestamp": "", "level": "", **redaction.fields({**event, "event": "x"})})
    assert b"\n" not in made
    json.loads(made)
