"""`posthouse keyring`: the file of sealing keys."""

from __future__ import annotations

import typer

app = typer.Typer(help="The keyring that seals secrets.", no_args_is_help=True)


@app.command("init")
def init() -> None:
    """Make a new keyring where the settings say. One that is there is never overwritten."""
    from gateway.cli.opened import settings
    from gateway.errors import SetupError
    from gateway.vault import files, keyring

    chosen = settings()
    if chosen.keyring is not None:
        raise SetupError("POSTHOUSE_KEYRING is set, so no file is used: unset it to make one")
    path = files.path(chosen)
    files.create(path, keyring.generate().to_json())
    print(f"made {path}")
    print("Back it up apart from the database: without it no sealed secret opens again.")


@app.command("status")
def status() -> None:
    """Which key versions there are. Shows no key."""
    from gateway.cli.opened import settings
    from gateway.vault import files, keyring

    chosen = settings()
    keys = keyring.load(chosen)
    print(f"source    {'POSTHOUSE_KEYRING' if chosen.keyring is not None else files.path(chosen)}")
    print(f"current   {keys.current}")
    print(f"versions  {', '.join(map(str, keys.versions))}")
