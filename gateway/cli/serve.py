"""`posthouse serve`: one of any number of processes on one database."""

from __future__ import annotations

import typer


def serve(
    only: str = typer.Option("", help="`web`: the listeners; `worker`: background work, and health on the private one"),
    reuse_port: bool = typer.Option(
        False, "--reuse-port", help="let several processes of this machine share the ports"
    ),
) -> None:
    """Run one process. It never migrates: it runs on its own schema and on the next, else it says so and ends."""
    from gateway import serve as serving
    from gateway.cli.opened import settings
    from gateway.errors import SetupError
    from subscriptions import house

    chosen = settings()
    if only not in ("", "web", "worker"):
        raise SetupError("--only is `web` or `worker`")
    if chosen.database_url is None:
        raise SetupError("POSTHOUSE_DATABASE_URL is not set (`posthouse up` brings its own database)")

    async def tell(process: serving.Process) -> None:
        print(f"posthouse: ready  public={process.public or '-'}  private={process.private}", flush=True)

    async def main() -> None:
        await serving.Process(
            chosen, only=only or None, reuse_port=reuse_port, on_ready=tell, upstairs=house.opened  # type: ignore[arg-type]  # looked at above
        ).run()  # fmt: skip

    serving.run(main, chosen)
