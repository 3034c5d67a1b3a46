"""How a key version comes into use and goes out of it, beside any number of processes that serve.

    add the version -> every process holds it -> make it current -> every process seals under it -> seal the rest anew

So nobody ever meets a blob that it cannot open, and when the last step ends nothing is left under the old version.
Cut off anywhere, the same command goes on. Processes say in control what they hold (`vault/holders.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.cli.opened import Opened
from gateway.cli.output import when
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.endpoints import store as endpoints
from gateway.errors import SetupError
from gateway.integrations import secrets
from gateway.tokens import spool
from gateway.vault import checks, direct, holders, keyring, rewrap, rotations
from gateway.vault.backend import LocalKeys, Rotates
from gateway.vault.direct import VERIFIERS, Direct
from gateway.vault.holders import Holder
from gateway.vault.proof import Checked
from gateway.vault.reseal import Reseal
from gateway.vault.rewrap import Rewrap
from gateway.vault.rotations import Job, Rotation
from gateway.web import idempotency

DIRECT: tuple[Direct, ...] = (secrets.SEALED, idempotency.SEALED, endpoints.SEALED, VERIFIERS)
WAIT_S = 60.0  # for processes to read the keyring's file: each looks once a second
LOOK_S = 0.25
KINDS = {"wrap": "data keys wrapped anew", "data": "token sets sealed anew"}


async def rotate(it: Opened) -> None:
    """`keyring rotate`.    Raises: SetupError, Unavailable."""
    settled, left = await _settled(it), await _direct_left(it)
    remote = it.backend if isinstance(it.backend, Rotates) else None
    if it.keyring.current != it.keyring.versions[-1]:
        await take_into_use(it, it.keyring.versions[-1])  # added before, by hand or by a rotation that was cut off
    elif left or not settled:
        print(f"key version {it.keyring.current} is current already; going on with what is not under it yet")
    elif remote is None or it.settings.keyring is None:
        await _new_version(it)
    if remote is not None and settled:
        print(f"version {await remote.rotate()} of the region's key is current")
    job = Rewrap(it.tokens.keys, it.region)
    begun = await job.begin()  # from here on it is under way, for whoever goes on with it
    await _until(
        it, lambda holder: holder.current == it.keyring.current, f"seal under key version {it.keyring.current}"
    )
    broken = 0
    for table in DIRECT:
        done = await direct.reseal(_database(it, table), table, it.keyring, _place(it, table))
        broken += done.broken
    with _bar("data keys") as tell:
        ended = await _finish(job, begun, tell)
    print(f"everything is under key version {it.keyring.current}: {ended.done} data keys wrapped anew")
    if broken or ended.broken:
        print(f"but {broken + ended.broken} values do not open: they were left as they are, under their old version")


async def rotate_data(it: Opened) -> None:
    """`keyring rotate --data`.    Raises: Unavailable."""
    job = Reseal(it.tokens.keys, it.region, it.tokens.blobs)
    with _bar("token sets") as tell:
        tell(await job.begin())
        ended = await rotations.run(job, tell, until=lambda step: step.waiting and step.position.get("step") == "drop")
    assert ended is not None
    print(f"every tenant has a new data key; {ended.done} token sets sealed anew")
    if ended.ended_at is None:
        print("The old data keys are deleted in two minutes, by a process that serves or by this command, run again.")
    if ended.broken:
        print(f"{ended.broken} token sets do not open and were left as they are, under their old data keys")


async def take_into_use(it: Opened, version: int) -> None:
    """Make a version that the keyring holds its current one, once every process can open it.    Raises: SetupError."""
    if it.settings.keyring is not None:
        raise SetupError(
            f"POSTHOUSE_KEYRING holds key version {version} and does not use it: `posthouse keyring use {version}`"
        )
    await _until(it, lambda holder: version in holder.versions, f"know key version {version}")
    it.keyring.take(keyring.use_version(it.settings, version))
    print(f"key version {version} is current")


async def retire(it: Opened, version: int) -> None:
    """Nothing is under this version and nobody seals under it: from now on a keyring may lack it.    Raises: SetupError."""
    it.keyring.without(version)
    if sealing := [holder for holder in await holders.alive(it.control) if holder.current == version]:
        raise SetupError(f"{_named(sealing)} still seal under key version {version}: wait, or end them")
    if using := {name: count for name, count in (await _under(it, version)).items() if count}:
        told = ", ".join(f"{count} {name}" for name, count in using.items())
        raise SetupError(f"key version {version} is in use ({told}): `posthouse keyring rotate` first")
    await checks.retire(it.control, ["control", it.region_name], version)


async def describe(it: Opened) -> None:
    """`keyring status`, of what the databases and Transit know."""
    if isinstance(it.backend, Checked):
        current, oldest = await it.backend.current(), await it.backend.oldest()
        print(f"transit    current {current}, opens {oldest} and newer")
    for version in it.keyring.versions:
        told = ", ".join(f"{count} {name}" for name, count in (await _under(it, version)).items() if count)
        print(f"version {version}  {told or 'nothing is under it'}")
    for holder in await holders.alive(it.control):
        held = ", ".join(map(str, holder.versions))
        print(f"process    {holder.process} on {holder.host}: seals under {holder.current}, holds {held}")
    for rotation in await rotations.all_of(it.region):
        ended = (
            f"ended {when(rotation.ended_at)}" if rotation.ended_at else f"under way since {when(rotation.began_at)}"
        )
        print(f"rotation   {KINDS[rotation.kind]}: {rotation.done} of {rotation.total}, {ended}")


async def _new_version(it: Opened) -> None:
    if it.settings.keyring is not None:
        raise SetupError(
            "the keyring comes from POSTHOUSE_KEYRING, and everything is under its current version: "
            "`posthouse keyring add` prints one with a new version"
        )
    it.keyring.take(keyring.add_version(it.settings, current=False))
    for place in ("control", it.region_name):
        await checks.verify_against(it.control, it.keyring, place)  # on record before anything is sealed under it
    await take_into_use(it, it.keyring.versions[-1])


async def _settled(it: Opened) -> bool:
    """Every data key is under the current version of the region's key, and no rotation was cut off."""
    found = await rotations.get(it.region, "wrap")
    return (found is None or found.ended_at is not None) and not await rewrap.left(
        it.region, await it.backend.current()
    )


async def _direct_left(it: Opened) -> bool:
    older = [version for version in it.keyring.versions if version != it.keyring.current]
    tables = [table for table in DIRECT if table.aad is not None]
    return any([await direct.under(_database(it, table), table, version) for table in tables for version in older])


async def _under(it: Opened, version: int) -> dict[str, int]:
    """What is sealed under this version of the keyring, by name."""
    found = {table.name: await direct.under(_database(it, table), table, version) for table in DIRECT}
    if isinstance(it.backend, LocalKeys):
        found["data keys"] = await rewrap.under(it.region, version)
    found["token sets in the spool"] = spool.under(it.settings.spool_folder, version)
    return found


async def _until(it: Opened, fits: Callable[[Holder], bool], what: str) -> None:
    """Wait for every process that serves.    Raises: SetupError, one of them does not come round."""
    deadline = SystemClock().monotonic() + WAIT_S
    while late := [holder for holder in await holders.alive(it.control) if not fits(holder)]:
        if SystemClock().monotonic() > deadline:
            raise SetupError(
                f"{_named(late)} did not come to {what} within {WAIT_S:.0f} s: "
                "give them the same keyring, then run this again"
            )
        await asyncio.sleep(LOOK_S)


async def _finish(job: Job, begun: Rotation, tell: Callable[[Rotation], None]) -> Rotation:
    tell(begun)
    ended = await rotations.run(job, tell)
    assert ended is not None
    return ended


def _database(it: Opened, table: Direct) -> Database:
    return it.control if table.line == "control" else it.region


def _place(it: Opened, table: Direct) -> str:
    return "control" if table.line == "control" else it.region_name


def _named(processes: list[Holder]) -> str:
    hosts = ", ".join(sorted({holder.host for holder in processes}))
    return f"{len(processes)} processes ({hosts})"


@contextmanager
def _bar(what: str) -> Iterator[Callable[[Rotation], None]]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None, note="")

        def tell(rotation: Rotation) -> None:
            note = "waiting for every process to use the new keys" if rotation.waiting else ""
            progress.update(task, total=rotation.total, completed=rotation.done, note=note)

        yield tell
