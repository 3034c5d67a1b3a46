"""The `posthouse` command. A file a group; each imports what it needs when it runs, so a command starts fast."""

from __future__ import annotations

import sys

import typer

from gateway.cli import (
    alerts,
    apply,
    connections,
    consumers,
    deliveries,
    deploy,
    doctor,
    events,
    history,
    incidents,
    integrations,
    keyring,
    keys,
    migrate,
    openapi,
    providers,
    renewals,
    restored,
    rotations,
    sandbox,
    serve,
    simulate,
    up,
)

app = typer.Typer(
    name="posthouse",
    help="A self-hosted, webhook-centric integration gateway.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same on a terminal, in a log and in a file
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("migrate")(migrate.migrate)
app.command("doctor")(doctor.doctor)
app.command("apply")(apply.apply)
app.command("alerts")(alerts.alerts)
app.command("openapi")(openapi.openapi)
app.command("restored", help=restored.HELP)(restored.restored)
app.command("deploy")(deploy.deploy)
app.command("sandbox")(sandbox.sandbox)
app.command("simulate")(simulate.simulate)
app.add_typer(integrations.app, name="integrations")
app.add_typer(keys.app, name="keys")
app.add_typer(connections.app, name="connections")
connections.app.command("history")(history.history)
connections.app.command("rotations")(rotations.rotations)
app.add_typer(deliveries.app, name="deliveries")
app.add_typer(events.app, name="events")
app.add_typer(consumers.app, name="consumers")
app.add_typer(providers.app, name="providers")
app.add_typer(incidents.app, name="incidents")
app.add_typer(keyring.app, name="keyring")
app.add_typer(renewals.app, name="renewals")


def main() -> None:
    """Run the command line and end the process with its status: 0, 1 (could not), 2 (asked wrongly), 130 (Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The status of one command line; what a person should read stands on standard error."""
    try:
        status = app(arguments, prog_name="posthouse", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # `posthouse events tail | head -1`
        sys.stdout = None  # else the interpreter flushes it once more, loudly
        return 141
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    from gateway.cli.failures import one_line

    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's own: wrong usage
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
        else:
            hint = f" (see `{context.command_path} --help`)" if context is not None else ""
            print(f"posthouse: {' '.join(error.format_message().split())}{hint}", file=sys.stderr)
        return int(error.exit_code)
    line = one_line(error)
    if line is None:  # a fault of ours; what the error says may quote anything, where it was raised does not
        from gateway import redaction

        ours = [frame for frame in redaction.frames(error.__traceback__) if frame.startswith("gateway.")]
        line = f"internal error, please report it: {redaction.failure(error)} at {ours[-1] if ours else '?'}"
    print(f"posthouse: {' '.join(line.split())}", file=sys.stderr)
    return 1
