"""The doctor looks at everything, writes nothing, and says of each thing that is wrong what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.database import Database
from gateway.doctor import Finding, examine, spool
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.refusals import Refusals
from gateway.settings import Settings
from gateway.vault import checks
from gateway.vault.keyring import Keyring, generate
from tests.clock import FakeClock
from tests.signers import SIGNERS


def of(findings: list[Finding], about: str) -> Finding:
    """The one finding about a thing."""
    [found] = [each for each in findings if each.about == about]
    return found


async def in_step(database: Database, clock: FakeClock) -> None:
    """Put the test's clock where the database's is."""
    clock.move((await database.fetchval("SELECT clock_timestamp()") - clock.now()).total_seconds())


async def integration(database: Database, keyring: Keyring, name: str, secrets: tuple[bytes, ...]) -> store.Stored:
    wanted = Wanted(name=name, provider="github", secrets={"signing_secrets": secrets})
    async with database.transaction() as tx:
        return await store.create(tx, keyring, wanted, await tx.fetchval("SELECT now()"), by="api")


async def test_a_sound_deployment_needs_nothing(
    settings: Settings, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """Every finding is ok, but for the test server's durability, which is off so that tests are fast."""
    await checks.verify_against(database, keyring)
    await integration(database, keyring, "hub", SIGNERS["github"].secrets[:1])
    await in_step(database, clock)
    findings = await examine(settings, clock)
    assert {found.about for found in findings if found.verdict == "fix"} <= {"region durability"}
    assert of(findings, "integration hub").line == "github, 1 secrets"
    assert of(findings, "region clock").verdict == "ok"
    assert all("\n" not in found.line for found in findings)


async def test_every_fault_is_named_with_what_to_do(
    settings: Settings, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """No secrets, a clock that is off, a shifted clock of the region, no day ahead, a URL that nobody can call."""
    bare = await integration(database, keyring, "bare", ())
    foreign = await integration(database, generate(), "foreign", SIGNERS["github"].secrets[:1])
    refusals = Refusals()
    refusals.record(
        integration=foreign.id, endpoint=None, reason="stale", status=401, header_names=["x"], skew_s=400.0, size=1,
        digest=b"d" * 32, at=await database.fetchval("SELECT now() + interval '8 days'"),
    )  # fmt: skip
    await refusals.flush(database)
    await in_step(database, clock)
    clock.move(120)
    await database.execute("UPDATE gateway.clock SET shifted_by = '8 days'")
    findings = await examine(settings.model_copy(update={"public_url": "http://example.com"}), clock)
    assert "add-secret bare" in of(findings, f"integration {bare.name}").line
    about_foreign = [found for found in findings if found.about == "integration foreign"]
    assert "does not open with this keyring" in about_foreign[0].line
    assert "stale 1; signed times are 400 s older" in about_foreign[1].line
    assert of(findings, "region clock").verdict == "fix"
    assert "https" in of(findings, "public url").line
    told = [found.line for found in findings if found.about == "log"]
    assert any("shifted" in line for line in told)
    assert any("no partition for tomorrow" in line for line in told)


async def test_another_keyring_is_noticed_and_nothing_is_written(
    settings: Settings, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """A start would note whose keyring it is; the doctor only looks."""
    await examine(settings, clock)
    assert await database.fetchval("SELECT count(*) FROM control.keyring_checks") == 0
    await checks.verify_against(database, generate())
    findings = await examine(settings, clock)
    assert [found.verdict for found in findings if found.about == "keyring"] == ["ok", "fix"]


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://hooks.example.com", "ok"),
        ("http://hooks.example.com", "fix"),
        ("https://10.1.2.3", "look"),
        ("http://localhost:8080", "look"),
        ("https://user:hush@hooks.example.com", "fix"),
        ("https://[::zz]", "fix"),
    ],
)
async def test_a_public_url_is_judged_by_its_shape(
    url: str, verdict: str, settings: Settings, clock: FakeClock
) -> None:
    """Providers call https, from the internet; a login in it is not repeated."""
    found = of(await examine(settings.model_copy(update={"public_url": url}), clock), "public url")
    assert found.verdict == verdict
    assert "hush" not in found.line


async def test_a_database_that_is_away_is_one_line(settings: Settings, clock: FakeClock) -> None:
    """With host and port, without user and password."""
    away = settings.model_copy(update={"database_url": SecretStr("postgresql://me:hush@127.0.0.1:1/x")})
    found = of(await examine(away, clock), "region database")
    assert found.line == "PostgreSQL at 127.0.0.1:1 cannot be reached: Connection refused"


MOUNTS = """overlay / overlay rw,relatime 0 0
/dev/sda1 /var/lib ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sdb1 /mnt/a\\040volume xfs rw 0 0
tmpfs /mnt/a\\040volume/fast tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "verdict", "kind"),
    [
        ("/var/lib/x", "ok", "ext4"),
        ("/mnt/a volume/x", "ok", "xfs"),
        ("/mnt/a volume/fast/x", "look", "tmpfs"),
        ("/run/x", "look", "tmpfs"),
        ("/srv/x", "look", "overlay"),
    ],
)
def test_a_spool_that_goes_with_its_container_is_named(
    folder: str, verdict: str, kind: str, settings: Settings, tmp_path: Path
) -> None:
    """By what is mounted there: here the test's folder stands for each of those."""
    there = MOUNTS.replace(" /", f" {tmp_path}/")
    chosen = settings.model_copy(update={"spool_dir": Path(f"{tmp_path}{folder}")})
    (tmp_path / folder.lstrip("/")).mkdir(parents=True)
    [found] = spool.look(chosen, there)
    assert (found.verdict, kind in found.line) == (verdict, True)
    assert ("POSTHOUSE_SPOOL_DIR" in found.line) == (verdict != "ok")
    [untold] = spool.look(chosen, None)
    assert untold.verdict == "look"


def test_a_spool_says_what_lies_there_and_whether_it_can_be_written(settings: Settings, tmp_path: Path) -> None:
    """One that is not there yet will be made; one that is no folder must be mended."""
    folder = tmp_path / "spool"
    assert [found.verdict for found in spool.look(settings, "x / ext4 rw 0 0")] == ["look"]
    assert not folder.exists()
    (folder / "set-aside").mkdir(parents=True)
    (folder / "a-b.spool").write_bytes(b"")
    (folder / "set-aside" / "c-d.spool").write_bytes(b"")
    lines = [found.line for found in spool.look(settings, "x / ext4 rw 0 0")]
    assert ("1 token sets wait" in lines[1], "1 files in" in lines[2]) == (True, True)
    other = settings.model_copy(update={"spool_dir": folder / "a-b.spool" / "x"})
    assert spool.look(other, "x / ext4 rw 0 0")[0].verdict == "fix"
