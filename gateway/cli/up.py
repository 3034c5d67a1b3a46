"""`posthouse up`: the whole gateway on one machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.serve import Process
    from gateway.settings import Settings


def up() -> None:
    """Start everything on this machine: database, schema, keyring, both listeners. Ctrl-C stops it; data stays."""
    from gateway import serve
    from gateway.cli.opened import settings
    from subscriptions import house

    chosen = settings()
    unset: dict[str, object] = {}
    if "drain_pause_s" not in chosen.model_fields_set:
        unset["drain_pause_s"] = 0.0  # no load balancer in front to wait for
    if "log_format" not in chosen.model_fields_set and sys.stderr.isatty():
        unset["log_format"] = "console"
    if "log_level" not in chosen.model_fields_set:
        unset["log_level"] = "warning"  # what is worth reading stands on standard output
    chosen = chosen.model_copy(update=unset)

    async def main() -> None:
        machine = Machine()
        process = serve.Process(chosen, prepare=machine.prepare, on_ready=machine.tell, upstairs=house.opened)
        try:
            await process.run()
        finally:
            await machine.stop()

    serve.run(main, chosen)


class Machine:
    """What `up` brings to a process: a database where none is set, the keyring, the first key."""

    def __init__(self) -> None:
        from gateway.embedded import EmbeddedPostgres

        self._postgres: EmbeddedPostgres | None = None
        self._reviving: object = None

    async def prepare(self, settings: Settings) -> Settings:
        """Everything that must be there before the gateway opens; the settings, with the database's address."""
        import asyncio

        from pydantic import SecretStr

        from gateway import migrate
        from gateway.embedded import start
        from gateway.loop import every
        from gateway.vault import keyring

        if settings.database_url is None:
            self._postgres = await start(settings.home)
            self._reviving = asyncio.create_task(every(1.0, self._postgres.revive, name="revive"))
            settings = settings.model_copy(update={"database_url": SecretStr(self._postgres.dsn)})
        if keyring.absent(settings) and await _sealed_before(settings):
            keyring.load(settings)  # raises: says which file is missing; a new one would open nothing
        keyring.load_or_create(settings)
        await migrate.migrate_all(settings)
        return settings

    async def tell(self, process: Process) -> None:
        """Where everything is; and once in the life of a deployment, its first key."""
        from gateway.access import keys

        gateway = process.gateway
        assert gateway is not None
        async with gateway.control.transaction() as tx:
            first = await keys.ensure_first(tx, gateway.control_keyring, gateway.clock.now())
        if first is not None:
            await gateway.catalog.refresh()
        home = process.settings.home.resolve()
        database = "embedded PostgreSQL" if self._postgres is not None else "POSTHOUSE_DATABASE_URL"
        print("posthouse is ready")
        print(f"  public    {process.public}    /hooks/INTEGRATION: what providers call")
        print(f"  private   {process.private}    /v1, /openapi.json, /metrics, /healthz, /readyz")
        print(f"  database  {database}")
        print(f"  home      {home}")
        if first is not None:
            print(f"  admin API key, shown this once: {first.token}")
        sys.stdout.flush()

    async def stop(self) -> None:
        """Stop what was started here."""
        import asyncio

        if isinstance(self._reviving, asyncio.Task):
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
        if self._postgres is not None:
            await self._postgres.stop()


async def _sealed_before(settings: Settings) -> bool:
    from gateway import reach
    from gateway.vault import checks

    assert settings.control_url is not None
    control = await reach.connect(settings.control_url.get_secret_value(), "the control database")
    try:
        return await checks.sealed_before(control)
    finally:
        await control.close(timeout=2)
