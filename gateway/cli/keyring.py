"""`posthouse keyring`: sealing keys. All of it works beside processes that serve."""

from __future__ import annotations

import asyncio
import sys

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
    """Which key versions there are, what is under each, which processes hold them, how far a rotation is. Shows no key."""
    from gateway.cli.opened import opened, settings
    from gateway.cli.rotating import describe
    from gateway.errors import SetupError
    from gateway.vault import files, keyring

    chosen = settings()
    keys = keyring.load(chosen)
    print(f"source     {'POSTHOUSE_KEYRING' if chosen.keyring is not None else files.path(chosen)}")
    print(f"current    {keys.current}")
    print(f"versions   {', '.join(map(str, keys.versions))}")

    async def main() -> None:
        async with opened() as it:
            await describe(it)

    try:
        asyncio.run(main())
    except SetupError as error:
        print(f"database   {error}")


@app.command("add")
def add() -> None:
    """Add a version that seals nothing yet. With POSTHOUSE_KEYRING it prints the new keyring, for you to roll out."""
    from gateway.cli.opened import settings
    from gateway.vault import keyring

    chosen = settings()
    if chosen.keyring is not None:
        grown = keyring.load(chosen).with_new_version(current=False)
        _hand_over(
            grown.to_json(), f"holds key version {grown.versions[-1]}; then: posthouse keyring use {grown.versions[-1]}"
        )
        return
    grown = keyring.add_version(chosen, current=False)
    print(f"added key version {grown.versions[-1]}; `posthouse keyring rotate` takes it into use")


@app.command("use")
def use(version: int) -> None:
    """Seal under this version from now on. With POSTHOUSE_KEYRING it prints the keyring that does."""
    from gateway.cli.opened import opened, settings
    from gateway.cli.rotating import take_into_use
    from gateway.vault import keyring

    chosen = settings()
    if chosen.keyring is not None:
        _hand_over(
            keyring.load(chosen).with_current(version).to_json(),
            f"seals under {version}; then: posthouse keyring rotate",
        )
        return

    async def main() -> None:
        async with opened() as it:
            await take_into_use(it, version)

    asyncio.run(main())
    print(f"key version {version} is current")


@app.command("rotate")
def rotate(
    data: bool = typer.Option(False, "--data", help="new data keys for all tenants, and their tokens sealed anew"),
) -> None:
    """A new key version, current at once; then everything is wrapped under it. Run again, it goes on where it was cut."""
    from gateway.cli import rotating
    from gateway.cli.opened import opened

    async def main() -> None:
        async with opened() as it:
            await (rotating.rotate_data(it) if data else rotating.rotate(it))

    asyncio.run(main())


@app.command("retire")
def retire(
    version: int, transit: bool = typer.Option(False, "--transit", help="of the Transit key, with all older ones")
) -> None:
    """Take a version out of the keyring for good. Refused while anything is under it, or a process seals under it."""
    from gateway.cli.opened import opened
    from gateway.cli.rotating import retire as retired
    from gateway.vault import keyring

    if transit:
        asyncio.run(_retire_transit(version))
        return

    async def main() -> bool:
        async with opened() as it:
            await retired(it, version)
            if it.settings.keyring is not None:
                return False
            keyring.drop_version(it.settings, version)
            return True

    if asyncio.run(main()):
        print(f"retired key version {version}: it is no longer in the keyring")
    else:
        print(f"key version {version} is not needed any more: take it out of POSTHOUSE_KEYRING")


async def _retire_transit(version: int) -> None:
    from gateway.cli.opened import opened
    from gateway.errors import SetupError
    from gateway.vault.proof import Checked

    async with opened() as it:
        if not isinstance(it.backend, Checked):
            raise SetupError("POSTHOUSE_KEY_BACKEND is not transit")
        await it.backend.retire(version)
        print(f"Transit opens version {await it.backend.oldest()} and newer ones")


def _hand_over(whole: str, what: str) -> None:
    """The keyring itself on standard output, for a pipe into a secret store; what to do with it beside it."""
    sys.stdout.write(whole)
    print(f"Put this where POSTHOUSE_KEYRING is set and restart every process: it {what}", file=sys.stderr)
