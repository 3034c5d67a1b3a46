"""The demo as `make demo` starts it: it ends with a verdict, and whatever happens nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

PATIENCE_S = 120


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where its temporary folder will be; empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="ph-", dir="/tmp") as made:
        yield Path(made)


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A short one, without a terminal and with little in its environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "tests.demo", "--deliveries", "30", *arguments,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder)}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()
        process._transport.close()  # type: ignore[attr-defined]  # else its pipes are closed by the collector, with a warning


def left_in(folder: Path) -> list[str]:
    """Files of the demo's, and processes that speak of its folder or were told of it."""
    found = [str(path) for path in folder.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
            told = (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended
        if os.fsencode(folder) in command + told:
            found.append(command.decode(errors="replace"))
    return found


async def test_it_ends_with_a_verdict(folder: Path) -> None:
    """Everything as it must be: status 0, the table, and not a process or file behind it."""
    async with demo(folder, "--seed", "7") as process, asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said
    assert "All as it must be (seed 7" in said
    assert "SIGKILL" in said
    assert "duplicates dropped" in said
    for shown in (
        "user-1 of acme: asked for contacts.read, messages.read, profile; agreed; the connection is active",
        "user-2 of globex: unticked messages.read; told: Some permissions are missing; reauth_required (scopes_missing)",
        "the link that mends it asked for messages.read; agreed; the connection is active",
        "posthouse.delivery.sandbox.message.created for user-2 of globex",
        "answers the same tokens with 401, 401",
        "ok     tokens are refreshed and read after the kill as before",
        "ok     no token, code, link, key or secret was printed or logged",
    ):
        assert shown in said, said
    assert re.search(r"\b(at|rt|code|secret|whsec)_[A-Za-z0-9_+/-]{20}", said) is None
    assert "WRONG" not in said
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("posthouse apply", signal.SIGINT),
        ("its token, ", signal.SIGTERM),
        pytest.param("SIGKILL: ", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
async def test_stopped_at_a_bad_moment_it_leaves_nothing(folder: Path, moment: str, number: signal.Signals) -> None:
    """Ctrl-C in the middle; a terminate between two tokens, or while the gateway is dead and PostgreSQL an orphan."""
    async with demo(folder) as process, asyncio.timeout(PATIENCE_S):
        assert process.stdout is not None
        while moment not in (line := (await process.stdout.readline()).decode()):
            assert line, "it ended before that"
        process.send_signal(number)
        out, _ = await process.communicate()
    assert process.returncode == 130
    assert "nothing is left running" in out.decode()
    assert left_in(folder) == []
