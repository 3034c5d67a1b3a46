"""The databases: reachable, new enough, durable, migrated, in step with our clock, with days of log ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gateway import migrate, reach
from gateway.clock import Clock
from gateway.doctor.finding import Finding
from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.stream.upkeep import Upkeep
from gateway.vault import checks
from gateway.vault.keyring import Keyring

SKEW_LOOK_S, SKEW_FIX_S = 2.0, 30.0  # signatures tolerate 300 s, tokens of Google's less; leases nothing of ours
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
FREE_CONNECTIONS = 20


@dataclass
class Look:
    """What was found at one line's database, and the connection to it, if there is one."""

    connection: Any | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Its tables can be asked."""
        return all(found.verdict != "fix" or "schema" not in found.about for found in self.findings)

    async def close(self) -> None:
        if self.connection is not None:
            await self.connection.close(timeout=2)


def lines(settings: Settings) -> list[migrate.Line]:
    """Which there are to look at. One database may hold both, and is then looked at for each."""
    return list(migrate.LINES) if settings.database_url is not None else []


async def look(settings: Settings, line: migrate.Line, clock: Clock) -> Look:
    """Connect to a line's database and examine the server."""
    url = settings.control_url if line == "control" else settings.database_url
    assert url is not None
    dsn = url.get_secret_value()
    about = f"{line} database"
    alone = line == "region" or settings.control_database_url is not None  # else it is the region's, looked at there
    try:
        connection = await reach.connect(dsn, "PostgreSQL", application_name="posthouse-doctor")
    except SetupError as error:
        return Look(None, [Finding("fix", about, str(error))] if alone else [])
    found = Look(connection)
    major = connection.get_server_version().major
    if major < migrate.LEAST_POSTGRES:
        found.findings.append(
            Finding("fix", f"{line} schema", f"PostgreSQL {major}: {migrate.LEAST_POSTGRES} or newer is needed")
        )
        return found
    try:
        schema = await migrate.version(connection, line)
        migrate.check(schema, migrate.HEAD[line], line)
        found.findings.append(Finding("ok", f"{line} schema", f"{schema}, fits this version"))
    except SetupError as error:
        found.findings.append(Finding("fix", f"{line} schema", str(error)))
    if alone:
        found.findings.insert(0, Finding("ok", about, f"PostgreSQL {major} at {reach.place(dsn)}"))
        found.findings += [
            *await _server(connection, line),
            _encrypted(dsn, line),
            await _clock(connection, line, clock),
        ]
    return found


async def _server(connection: Any, line: str) -> list[Finding]:
    findings = []
    off = [name for name in DURABLE if await connection.fetchval("SELECT current_setting($1)", name) == "off"]
    if off:
        findings.append(
            Finding(
                "fix", f"{line} durability", f"{', '.join(off)} off: a crash may lose what was acknowledged; switch on"
            )
        )
    else:
        findings.append(Finding("ok", f"{line} durability", ", ".join(DURABLE) + " on"))
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        findings.append(Finding("fix", f"{line} server", "is a standby that takes no writes: name the primary"))
    free = await connection.fetchval(
        "SELECT current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
    )
    if free < FREE_CONNECTIONS:
        findings.append(Finding("look", f"{line} server", f"{free} connections free: raise max_connections"))
    return findings


def _encrypted(dsn: str, line: str) -> Finding:
    parts = urlsplit(dsn)
    mode = parse_qs(parts.query).get("sslmode", [""])[0]
    if parts.hostname in (None, "localhost", "127.0.0.1", "::1") or mode == "verify-full":
        return Finding("ok", f"{line} tls", mode or "not needed on this machine")
    return Finding("look", f"{line} tls", f"sslmode is {mode or 'not set'}: only verify-full proves who answers")


async def _clock(connection: Any, line: str, clock: Clock) -> Finding:
    before = clock.now()
    theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
    skew = (theirs - before).total_seconds() - (clock.now() - before).total_seconds() / 2
    text = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this process"
    if abs(skew) < SKEW_LOOK_S:
        return Finding("ok", f"{line} clock", "in step with this process")
    return Finding("fix" if abs(skew) > SKEW_FIX_S else "look", f"{line} clock", f"{text}: run NTP on both machines")


async def keyring_fits(control: Any, keys: Keyring) -> list[Finding]:
    """Is it the keyring that this deployment was sealed with? Unlike a start, this writes no proof."""
    held = keys.proofs("control")
    wrong = [
        str(row["version"] or "hashing")
        for row in await control.fetch(checks.READ, "control")
        if held.get(row["version"], bytes(row["proof"]) if row["retired"] else b"") != bytes(row["proof"])
    ]
    if wrong:
        return [
            Finding("fix", "keyring", f"not the one this database was sealed with ({', '.join(wrong)}): restore it")
        ]
    return []


async def log(region: Any, settings: Settings) -> list[Finding]:
    """Can events be written: the function, the days ahead, a clock that nobody shifted."""
    findings = []
    if not await region.fetchval(
        "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'gateway' AND p.proname = 'append'"
    ):
        findings.append(
            Finding("fix", "log", "gateway.append is missing: restore the schema (`posthouse migrate` made it)")
        )
    shifted = await region.fetchval("SELECT shifted_by <> '0' FROM gateway.clock")
    if shifted:
        findings.append(Finding("fix", "log", "gateway.clock is shifted, which is for tests: UPDATE it back to '0'"))
    ahead = await Upkeep(region, settings.retention_days).days_ahead(region)
    if ahead < 1:
        findings.append(
            Finding("fix", "log", "no partition for tomorrow: start a process and look for loop.failed in its log")
        )
    else:
        size = await region.fetchval("SELECT pg_size_pretty(pg_database_size(current_database()))")
        findings.append(
            Finding("ok" if ahead > 2 else "look", "log", f"partitions {ahead} days ahead; database {size}")
        )
    return findings
