"""`posthouse connections`: accounts of tenants. Look at them, bring them in with their tokens, let them out, end them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import typer

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.adoption.lines import Outcome
    from gateway.service import Gateway

app = typer.Typer(help="Connections: accounts of tenants at integrations.", no_args_is_help=True)

TENANT = typer.Option("", help="only this tenant's")
INTEGRATION = typer.Option("", help="only this integration's")
LONGEST_LINE = 1024 * 1024  # bytes
BATCH = 500  # lines of a file at once
MOST_TOLD = 100  # refused lines that are told one by one


@app.command("list")
def list_connections(
    tenant: str = TENANT,
    integration: str = INTEGRATION,
    state: str = typer.Option("", help="only in this state"),
    limit: int = typer.Option(100, min=1, max=100_000, help="how many, oldest first"),
    json: bool = typer.Option(False, "--json", help="for programs"),
) -> None:
    """Connections, oldest first."""

    async def run() -> None:
        from gateway import ids
        from gateway.cli import output
        from gateway.cli.opened import at_hand
        from gateway.connections import store

        async with at_hand() as it:
            wanted = store.Filter(
                tenant_id=tenant or None, integration_id=_integration(it, integration), state=state or None
            )
            found = []
            for region in it.regions:
                found += await store.page(region.database, wanted, after=None, limit=limit)
            names = {one.id: one.name for one in it.catalog.integrations()}
        if json:
            output.as_json(found)
            return
        output.table(
            ("id", "tenant", "integration", "external_id", "state", "reason", "made"),
            [
                (
                    ids.show(ids.CONNECTION, one.id), one.tenant_id, names.get(one.integration_id, "(removed)"),
                    one.external_id, one.state, one.reason, one.created_at,
                )
                for one in found[:limit]
            ],
            empty="no connections",
        )  # fmt: skip

    asyncio.run(run())


@app.command("show")
def show(connection: str = typer.Argument(help="conn_…")) -> None:
    """One connection with its grants, as JSON. No token."""

    async def run() -> None:
        from dataclasses import asdict

        from gateway.cli import output
        from gateway.cli.opened import at_hand, located
        from gateway.connections import grants

        async with at_hand() as it:
            region, found = await located(it, connection)
            held = await grants.of(region.database, [found.id])
        output.as_json({**asdict(found), "grants": [asdict(grant) for grant in held]})

    asyncio.run(run())


@app.command("import")
def bring_in(
    file: Path = typer.Argument(help="JSON, one connection a line"),
    hold: bool = typer.Option(False, "--hold", help="neither refresh nor renew them until `connections activate`"),
    dry_run: bool = typer.Option(False, "--dry-run", help="say what would become of each line, and do nothing"),
    allow_unrefreshable: bool = typer.Option(
        False, "--allow-unrefreshable", help="take in what nothing can refresh, as reauth_required"
    ),
) -> None:
    """Take over connections with their tokens. A file that was broken off is imported again: what is there stays.

    Lines that cannot be are told by number on standard error, never by what they say. Status 1 if there was one.
    """

    async def run() -> int:
        from gateway.adoption.importing import bring_in
        from gateway.adoption.lines import LineRefused, Outcome
        from gateway.cli.opened import at_hand
        from gateway.cli.progress import Progress
        from gateway.web.adoption import read_line

        counted: Counter[str] = Counter()
        told = 0

        def tell(number: int, outcome: Outcome) -> None:
            nonlocal told
            counted[outcome.result] += 1
            if outcome.result == "refused":
                told += 1
                if told <= MOST_TOLD:
                    print(f"line {number}: {outcome.reason}: {outcome.detail}", file=sys.stderr)

        async with at_hand() as it:
            with file.open("rb") as opened, Progress("importing", os.fstat(opened.fileno()).st_size) as bar:
                number = 0
                while raw := _lines(opened, BATCH):
                    lines, outcomes = [], []
                    for text in raw:
                        number += 1
                        if not text.strip():
                            continue
                        try:
                            if len(text) > LONGEST_LINE:
                                raise LineRefused("too_large", f"a line is at most {LONGEST_LINE} bytes long")
                            lines.append((number, read_line(text)))
                        except LineRefused as refused:
                            refusal = Outcome(result="refused", reason=refused.reason, detail=refused.detail)
                            outcomes.append((number, refusal))
                    found = await bring_in(
                        it, [line for _, line in lines], hold=hold, unrefreshable=allow_unrefreshable,
                        dry_run=dry_run, new_id=it.new_id,
                    )  # fmt: skip
                    outcomes += [(at, outcome) for (at, _), outcome in zip(lines, found, strict=True)]
                    for at, outcome in sorted(outcomes, key=lambda each: each[0]):
                        tell(at, outcome)
                    bar.advance(sum(map(len, raw)))
        if told > MOST_TOLD:
            print(f"… and {told - MOST_TOLD} more lines were refused", file=sys.stderr)
        did = ", ".join(f"{counted[result]} {result}" for result in ("imported", "updated", "unchanged", "refused"))
        print(f"{'would be: ' if dry_run else ''}{did}")
        return 1 if counted["refused"] else 0

    raise typer.Exit(asyncio.run(run()))


@app.command("activate")
def activate(tenant: str = TENANT, integration: str = INTEGRATION) -> None:
    """End the hold of grants: from here on they are refreshed here, and only here."""
    _put(tenant, integration, held=False)


@app.command("hold")
def hold(tenant: str = TENANT, integration: str = INTEGRATION) -> None:
    """Neither refresh nor renew grants until `activate`: before another system takes them over."""
    _put(tenant, integration, held=True)


@app.command("close")
def close(connection: str = typer.Argument(help="conn_…")) -> None:
    """End a connection: no token of it is handed out any more. A serving process revokes them at the provider."""

    async def run() -> None:
        from gateway.cli.opened import at_hand, located
        from gateway.connections import store
        from gateway.ending import closing

        async with at_hand() as it:
            region, found = await located(it, connection)
            await closing.end(region, it.catalog, found.id, it.new_id)
            ended = await store.get(region.database, found.id)
        print(f"closed {connection}; revocation at the provider: {ended.revocation or 'nothing to revoke'}")

    asyncio.run(run())


def _put(tenant: str, integration: str, *, held: bool) -> None:
    async def run() -> None:
        from gateway.adoption import holding
        from gateway.cli.opened import at_hand
        from gateway.errors import SetupError

        if not tenant and not integration:
            raise SetupError("say which: --tenant, --integration, or both")
        connections = grants = 0
        async with at_hand() as it:
            wanted = _integration(it, integration)
            for region in it.regions:
                counted = await holding.put(
                    region, held=held, tenant=tenant or None, integration=wanted, new_id=it.new_id
                )
                connections, grants = connections + counted.connections, grants + counted.grants
        print(f"{'held' if held else 'activated'} {grants} grants of {connections} connections")

    asyncio.run(run())


@app.command("export")
def let_out(
    recipient: str = typer.Option(..., help="the public key that `connections keygen` printed"),
    tenant: str = TENANT,
    integration: str = INTEGRATION,
    output: Path | None = typer.Option(None, help="a new file; unset: standard output"),
) -> None:
    """Every matching connection with its tokens, sealed to a key: one line each, audited. `connections open` opens it."""

    async def run() -> None:
        from gateway.adoption import exporting
        from gateway.cli.opened import at_hand
        from gateway.vault.jwe import Recipient

        key = Recipient.parse(recipient)
        async with at_hand() as it:
            wanted = exporting.Wanted(
                recipient=key,
                actor=exporting.COMMAND_LINE,
                tenant=tenant or None,
                integration=_integration(it, integration),
            )
            number = -1  # the last line is no connection
            with _new_file(output) if output is not None else nullcontext(sys.stdout) as file:
                async for line in exporting.lines(it, wanted):
                    file.write(line)
                    number += 1
        print(f"exported {number} connections", file=sys.stderr)

    asyncio.run(run())


@app.command("keygen")
def keygen(file: Path = typer.Argument(help="where the private key goes: a new file")) -> None:
    """Make a key pair for an export: the private key into FILE, the public one on standard output. Needs no database."""
    from gateway.vault import files
    from gateway.vault.jwe import PrivateKey

    key = PrivateKey.generate()
    files.create(file, key.to_json())
    print(key.recipient.x)


@app.command("open")
def open_export(
    file: Path = typer.Argument(help="the export"),
    key: Path = typer.Option(..., help="the private key that `keygen` made"),
    output: Path = typer.Option(..., help="a new file, which only you can read: it holds the tokens in clear"),
) -> None:
    """Open an export, offline: a file that `connections import` takes. One that is not whole is refused."""
    from gateway.adoption.opening import Opening
    from gateway.vault import files
    from gateway.vault.jwe import PrivateKey

    private = PrivateKey.parse(files.read(key))
    with file.open() as sealed, _new_file(output) as clear:
        number, lines = 0, Opening(private, sealed)
        for line in lines:
            clear.write(line + "\n")
            number += 1
    print(f"opened {number} connections into {output}")
    if lines.unopened:
        print(f"{lines.unopened} connections are missing: their tokens did not open where it was made", file=sys.stderr)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A text file that only its owner reads, there under its name once it is whole.    Raises: OSError, it is there already."""
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            yield opened
        os.link(draft, path)  # unlike a rename, fails where the name is taken
    finally:
        draft.unlink(missing_ok=True)


def _lines(file: BinaryIO, most: int) -> list[bytes]:
    """The next lines. One that is too long comes cut, as long as tells."""
    lines: list[bytes] = []
    while len(lines) < most and (line := file.readline(LONGEST_LINE + 1)):
        lines.append(line)
        while not line.endswith(b"\n") and len(line) > LONGEST_LINE:
            line = file.readline(LONGEST_LINE + 1)
    return lines


def _integration(it: Gateway, name: str) -> UUID | None:
    from gateway.errors import SetupError

    if not name:
        return None
    found = it.catalog.integration(name)
    if found is None:
        raise SetupError("there is no integration of that name (see `posthouse integrations list`)")
    return found.id
