"""Start, adopt, revive and stop the embedded PostgreSQL. See `folder` for what lies where and what the locks say."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import asyncpg

from gateway.embedded.cluster import launch
from gateway.embedded.folder import DATABASE, EmbeddedUnavailable, Folder, dsn

_LOOK_S = 0.02  # how often a wait looks again
_SILENCE_S = 10  # a living server that answers nothing for so long is taken down
_RECOVERY_S = 600  # replaying its log after a crash may take long; longer is not waited for
# A fast shutdown writes a checkpoint; an immediate one does not, and recovery makes it good. Below 25 s in all.
_ORDERS = ((signal.SIGINT, 10), (signal.SIGQUIT, 6), (signal.SIGKILL, 2))

Answer = Literal["ready", "missing", "starting", "silent", "lost"]


async def start(folder: Path, *, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
    """Run PostgreSQL on `folder`: made if new, adopted if an orphan of a killed gateway still runs, else started.

    `settings` go over our defaults; an adopted server keeps those that it was started with.
    Raises: EmbeddedUnavailable, with one line that says why not, and what to do.
    """
    server = EmbeddedPostgres(folder, dict(settings or {}))
    try:
        await server._begin()
    except OSError as err:
        await server._abandon()
        about = err.filename or folder
        raise EmbeddedUnavailable(f"cannot use {about}: {err.strerror or err}; mend it or choose another") from err
    except BaseException:  # cancelled too: leave nothing running
        await server._abandon()
        raise
    return server


class EmbeddedPostgres:
    """A running server. Whoever holds this object holds the folder, until `stop` or the end of the process."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.dsn = ""  # for asyncpg and libpq: a unix socket; the database and the user are both `posthouse`
        self.pid = 0  # of the postmaster
        self.adopted = False  # it was running already
        self._folder = Folder(folder)
        self._settings = settings
        self._hold: int | None = None
        self._launched = False
        self._turn = asyncio.Lock()  # one start or stop at a time

    async def stop(self) -> None:
        """Stop PostgreSQL in an orderly way, wait until all of it is gone, and let go of the folder."""
        async with self._turn:
            if self._hold is None:
                return
            await self._end()
            self._folder.drop_outside_socket_dir()
            self._let_go()

    async def revive(self) -> bool:
        """Start PostgreSQL again if it has died under us, at the same address; whether it had. Cheap while it lives.

        Raises: EmbeddedUnavailable, it does not start now; worth another try.
        """
        async with self._turn:
            if self._hold is None or self._folder.postgres_lives():
                return False
            try:
                await self._run()
            except OSError as err:
                raise EmbeddedUnavailable(f"PostgreSQL cannot be started again: {err}") from err
            return True

    async def _begin(self) -> None:
        self._folder.make()
        self._hold = self._folder.hold()
        self.adopted = await self._ready(_SILENCE_S)
        if not self.adopted:
            await self._run()

    async def _run(self) -> None:
        self._launched = True
        _reap(self.pid)
        since = await _to_the_end(self._folder, self._settings)
        if not await self._ready(_RECOVERY_S):
            said = self._folder.complaint(since)
            raise EmbeddedUnavailable(f"PostgreSQL did not start: {said} (see {self._folder.log})")

    async def _ready(self, silence_s: float) -> bool:
        """Wait until the server that lives on the folder answers. False: none does, or it ended while we looked."""
        loop = asyncio.get_running_loop()
        began = heard = loop.time()
        while self._folder.postgres_lives():
            running = self._folder.postmaster()
            answer = await _ask(running.socket_dir) if running else "silent"
            if running and answer in ("ready", "missing"):
                if answer == "missing":
                    await _create_database(running.socket_dir)
                self.pid, self.dsn = running.pid, dsn(running.socket_dir)
                return True
            if answer == "starting":
                heard = loop.time()
            if answer == "lost" or loop.time() - heard > silence_s or loop.time() - began > _RECOVERY_S:
                await self._end()  # nobody can reach it any more, or it hangs
            await asyncio.sleep(_LOOK_S)
        return False

    async def _end(self) -> None:
        """Bring PostgreSQL down and wait until none of its processes is left."""
        for order, patience_s in _ORDERS:
            if await self._gone(order, patience_s):
                return
        raise EmbeddedUnavailable(
            f"PostgreSQL on {self._folder.path} neither answers nor stops; see {self._folder.log}, end it by hand"
        )

    async def _gone(self, order: signal.Signals, patience_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        told = 0
        while self._folder.postgres_lives():
            running = self._folder.postmaster()
            if running and told != running.pid:
                told = running.pid
                self._folder.tell(told, order)
            _reap(told)
            if loop.time() > until:
                return False
            await asyncio.sleep(_LOOK_S)
        _reap(told or self.pid)
        return True

    async def _abandon(self) -> None:
        try:
            if self._launched:
                await asyncio.shield(self._end())
        except EmbeddedUnavailable:
            pass  # what went wrong first is what the caller should read
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None


async def _to_the_end(folder: Folder, settings: Mapping[str, str]) -> int:
    """`launch` in a thread, which nobody can cancel: so wait for it even when we are."""
    launching = asyncio.ensure_future(asyncio.to_thread(launch, folder, settings))
    try:
        return await asyncio.shield(launching)
    except asyncio.CancelledError:
        await asyncio.wait([launching])
        launching.cancelled() or launching.exception()  # its failure has been looked at
        raise


async def _ask(socket_dir: str) -> Answer:
    """How the server at this socket is. `missing`: well, but without our database; `lost`: the socket is not there.

    Ask only where `postmaster.pid` names the socket: it does so once the socket is made.
    """
    try:
        connection = await asyncpg.connect(dsn(socket_dir), timeout=5)
    except asyncpg.CannotConnectNowError:
        return "starting"  # or stopping
    except asyncpg.InvalidCatalogNameError:
        return "missing"
    except asyncpg.PostgresError:
        return "ready"  # it refuses us for its own reasons (too many connections), but it is there
    except FileNotFoundError:
        return "lost"
    except (OSError, asyncpg.InterfaceError, TimeoutError):
        return "silent"
    await connection.close(timeout=5)
    return "ready"


async def _create_database(socket_dir: str) -> None:
    connection = await asyncpg.connect(dsn(socket_dir, "postgres"), timeout=30)
    try:
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    except asyncpg.DuplicateDatabaseError:
        pass
    except asyncpg.PostgresError as err:
        raise EmbeddedUnavailable(f"the database {DATABASE} cannot be created: {err}") from err
    finally:
        await connection.close()


def _reap(pid: int) -> None:
    """In a container we may be process 1, to whom every orphan falls."""
    if pid:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
