"""The gateway of the demo: a real `posthouse up` on a temporary folder. Whatever happens, nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.embedded import EmbeddedUnavailable
from gateway.embedded import start as adopt
from gateway.embedded.folder import Folder

READY_S = 60.0
STOP_S = 30.0


class Broken(Exception):
    """The demo cannot go on; one line says why."""


class Stage:
    """One home folder, two ports, and the process that runs on them just now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.public, self.private = (f"127.0.0.1:{port}" for port in _ports(2))
        self.key = ""
        self._up: asyncio.subprocess.Process | None = None
        self._sandbox: asyncio.subprocess.Process | None = None
        self._listening: list[asyncio.Task[None]] = []

    @property
    def public_url(self) -> str:
        return f"http://{self.public}"

    @property
    def private_url(self) -> str:
        return f"http://{self.private}"

    async def start(self) -> float:
        """`posthouse up`, until it is ready; how many seconds it took."""
        began = asyncio.get_running_loop().time()
        with (self.folder / "up.log").open("ab") as errors:
            self._up = await self._run("up", stdout=asyncio.subprocess.PIPE, stderr=errors)
        try:
            async with asyncio.timeout(READY_S):
                await self._until_ready(self._up)
        except TimeoutError:
            raise Broken(f"posthouse up was not ready within {READY_S:.0f} s: {self._complaint()}") from None
        self._listening.append(asyncio.create_task(_drain(self._up)))
        return asyncio.get_running_loop().time() - began

    async def sandbox(self, *arguments: str) -> str:
        """`posthouse sandbox` on a free port, until `clear`; what it says at its start.    Raises: Broken."""
        with (self.folder / "sandbox.log").open("ab") as errors:
            started = await self._run(
                "sandbox", "--listen", "127.0.0.1:0", *arguments, stdout=asyncio.subprocess.PIPE, stderr=errors
            )
        self._sandbox, said = started, ""
        assert started.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                while "POSTHOUSE_OUTBOUND_ALLOW" not in said:  # its last line
                    if not (line := (await started.stdout.readline()).decode()):
                        raise Broken(f"posthouse sandbox did not start: {self.log('sandbox.log')[-500:]}")
                    said += line
        except TimeoutError:
            raise Broken(f"posthouse sandbox was not ready within {READY_S:.0f} s") from None
        self._listening.append(asyncio.create_task(_drain(started)))
        return said

    async def kill(self) -> None:
        """SIGKILL: no good-bye, nothing flushed. PostgreSQL stays, an orphan."""
        assert self._up is not None
        self._up.kill()
        await self._gone()

    async def stop(self) -> int:
        """SIGTERM, and its status."""
        if self._up is None:
            return 0
        self._up.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                return await self._gone()
        except TimeoutError:
            await self.kill()
            return -signal.SIGKILL

    async def clear(self) -> None:
        """Stop everything, also PostgreSQL where the gateway was killed and did not come back."""
        await self.stop()
        if self._sandbox is not None:
            self._sandbox.kill()  # it keeps nothing
            await self._sandbox.wait()
        await asyncio.gather(*self._listening)
        if self.home.exists() and Folder(self.home).postgres_lives():
            try:
                await (await adopt(self.home)).stop()
            except EmbeddedUnavailable as trouble:
                print(f"demo: {trouble}", file=sys.stderr)

    async def command(self, *arguments: str, more: Mapping[str, str] | None = None) -> str:
        """What a `posthouse` command prints.    Raises: Broken, it failed."""
        process = await self._run(
            *arguments, more=more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )  # fmt: skip
        out, errors = await process.communicate()
        if process.returncode:
            raise Broken(f"posthouse {arguments[0]}: {errors.decode(errors='replace').strip()[-500:]}")
        return out.decode()

    async def _run(
        self, *arguments: str, more: Mapping[str, str] | None = None, stdout: int, stderr: object
    ) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
        ours = {
            "POSTHOUSE_HOME": str(self.home),
            "POSTHOUSE_PUBLIC_LISTEN": self.public,
            "POSTHOUSE_PRIVATE_LISTEN": self.private,
            "POSTHOUSE_PUBLIC_URL": self.public_url,
            "POSTHOUSE_OUTBOUND_ALLOW": "127.0.0.0/8",  # where the sandbox is
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "posthouse"), *arguments,
            env={**inherited, **ours, **(more or {})}, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout, stderr=stderr,  # type: ignore[arg-type]  # a file or a constant
            start_new_session=True,  # Ctrl-C is for us; we stop it in order
        )  # fmt: skip

    async def _until_ready(self, up: asyncio.subprocess.Process) -> None:
        assert up.stdout is not None
        last_line = "  home " if self.key else "admin API key"  # which is shown the first time only
        while line := (await up.stdout.readline()).decode():
            if found := re.search(r"API key, shown this once: (\S+)", line):
                self.key = found[1]
            if last_line in line:
                return
        await up.wait()
        raise Broken(f"posthouse up ended with status {up.returncode}: {self._complaint()}")

    async def _gone(self) -> int:
        up, self._up = self._up, None
        assert up is not None
        return await up.wait()

    def log(self, name: str) -> str:
        """What a process wrote to standard error."""
        return (self.folder / name).read_text(errors="replace")

    def _complaint(self) -> str:
        lines = self.log("up.log").strip().splitlines()
        return lines[-1][:500] if lines else "it said nothing"


@asynccontextmanager
async def stage(*, keep: bool) -> AsyncIterator[Stage]:
    """An empty stage; cleared at the end, however it comes."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-demo-"))
    folder.chmod(0o711)  # where root must drop to another user for PostgreSQL, that one passes through here
    made = Stage(folder)
    try:
        yield made
    finally:
        clearing = asyncio.ensure_future(made.clear())
        while not clearing.done():
            try:
                await asyncio.shield(clearing)
            except asyncio.CancelledError:
                continue  # asked to end once more: that is what we are doing
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read on, so that it never waits for us."""
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass


def _ports(count: int) -> list[int]:
    """Free ones, below those that the kernel gives to outgoing connections: they are to be free again after the kill."""
    found: list[int] = []
    chance = random.SystemRandom()
    for _ in range(1000):
        port = chance.randrange(20_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
        if len(found) == count:
            return found
    raise Broken("no free ports on 127.0.0.1 between 20000 and 30000")
