"""`posthouse doctor`: is everything as it should be?"""

from __future__ import annotations

import asyncio

import typer


def doctor() -> None:
    """Check database, clock, keyring, public URL, disk and each integration. Exit 1 when something must be done."""
    from gateway.cli.opened import settings, with_database
    from gateway.clock import SystemClock
    from gateway.doctor import examine

    findings = asyncio.run(examine(with_database(settings()), SystemClock()))
    width = max(len(found.about) for found in findings)
    for found in findings:
        print(f"{found.verdict:<4}  {found.about:<{width}}  {found.line}")
    if wrong := sum(found.verdict == "fix" for found in findings):
        print(f"{wrong} to fix")
        raise typer.Exit(1)
