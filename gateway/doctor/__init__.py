"""Is everything as it should be? One finding a line, each that is not well with what to do about it."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.doctor import database, integrations, machine, spool, vault
from gateway.doctor.finding import Finding
from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import keyring


async def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Everything that can be looked at from here. Writes nothing. `settings` must name a database."""
    findings = [machine.public_url(settings), *machine.disk(settings), *spool.look(settings, spool.mounts())]
    keys = None
    try:
        keys = keyring.load(settings)
        findings.append(
            Finding("ok", "keyring", f"versions {', '.join(map(str, keys.versions))}, current {keys.current}")
        )
    except SetupError as error:
        findings.append(Finding("fix", "keyring", str(error)))
    opened = [await database.look(settings, line, clock) for line in database.lines(settings)]
    for look in opened:
        findings += look.findings
    control, region = opened[0].connection, opened[-1].connection
    usable = all(look.usable for look in opened)
    try:
        findings += await vault.look(settings, keys, clock, region if usable else None)
        if control is not None and region is not None and usable:
            if keys is not None:
                findings += await database.keyring_fits(control, keys)
            findings += await database.log(region, settings)
            findings += await integrations.look(control, region, keys)
    finally:
        for look in opened:
            await look.close()
    return findings


__all__ = ["Finding", "examine"]
