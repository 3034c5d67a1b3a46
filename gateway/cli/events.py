"""`posthouse events`: the stream, as a consumer sees it."""

from __future__ import annotations

import asyncio
import json as jsons
import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gateway.client import Entry

app = typer.Typer(help="The event stream.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


@app.command("tail")
def tail(
    types: list[str] = typer.Option([], "--type", help="a type, or a dotted prefix of types; may repeat"),
    integration: str = typer.Option("", help="only this integration's"),
    tenant: str = typer.Option("", help="only this tenant's"),
    connection: str = typer.Option("", help="only this connection's"),
    after: str = typer.Option("latest", help="`latest`, `earliest`, or a cursor"),
    limit: int = typer.Option(0, "--limit", "-n", min=0, help="end after so many; 0: never"),
    json: bool = typer.Option(False, "--json", help="one JSON object a line, with the data"),
    url: str = typer.Option("", help="the private listener (default: POSTHOUSE_URL, else where our settings put it)"),
) -> None:
    """Print events as they are committed. The API key comes from POSTHOUSE_API_KEY, never from the command line."""
    from gateway.errors import SetupError

    key = os.environ.get("POSTHOUSE_API_KEY", "")
    if not key:
        raise SetupError("POSTHOUSE_API_KEY is not set (`posthouse keys create NAME --role reader` makes a key)")

    async def run() -> None:
        from gateway.cli.opened import settings
        from gateway.client import Client

        base = url or os.environ.get("POSTHOUSE_URL") or f"http://{settings().private_listen}"
        async with Client(base, key, patience_s=2.0) as posthouse:
            # Asked once beforehand: what is wrong is said, while the stream itself would go on trying.
            await posthouse.request("GET", "/v1/events", params={"limit": "1", "after": "latest"})
            seen = 0
            async for entry in posthouse.events(
                types=types or None, integration=integration or None, tenant=tenant or None,
                connection=connection or None, after=after,
            ):  # fmt: skip
                print(_as_json(entry) if json else _line(entry), flush=True)
                seen += 1
                if seen == limit:
                    return

    asyncio.run(run())


def _line(entry: Entry) -> str:
    from gateway.cli.output import when

    event = entry.event
    whose = ",".join(entry.connections) or "-"
    return f"{when(event.time)}  {event.type}  {event.integration or '-'}  {whose}  {len(event.data)} bytes"


def _as_json(entry: Entry) -> str:
    event = entry.event
    try:
        data = event.json()
    except ValueError:
        data = event.data.decode("utf-8", "replace")
    said = {
        "cursor": entry.cursor, "id": event.id, "type": event.type, "time": event.time.isoformat(),
        "source": event.source, "integration": event.integration, "connections": entry.connections,
        "tenants": entry.tenants, "data": data,
    }  # fmt: skip
    return jsons.dumps(said)
