"""64 bodies of 25 MiB at once: what does not fit is put off, memory stays bounded, what is acknowledged is kept."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.database import Database
from gateway.integrations import store
from gateway.settings import MIB
from gateway.vault.keyring import Keyring
from tests.flows import raw
from tests.flows.house import wanted
from tests.flows.raw import Answer, NoAnswer, connected
from tests.ops.processes import posthouse
from tests.signers import SIGNERS

GITHUB = SIGNERS["github"]
BODY = b'{"action":"opened","filler":"' + b"x" * (25 * MIB - 31) + b'"}'
INFLIGHT = 256 * MIB  # the default

KEPT = """SELECT delivery->'headers'->>'x-github-delivery' AS id, length(data) AS size, sha256(data) = $1 AS whole
            FROM gateway.events"""


def most_memory(pid: int) -> int:
    """The most that a process has held at a time, bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def deliver(url: str, number: int) -> Answer | None:
    """Send one, as much of it as is wanted; None where the connection ended first."""
    headers = GITHUB.headers(BODY, GITHUB.secrets[0], datetime.now(UTC), delivery_id=f"large-{number}", url=url)
    whole = memoryview(raw.request("/hooks/github", headers, BODY))
    async with connected(url) as connection:
        answer = asyncio.create_task(connection.answer())
        try:
            for at in range(0, len(whole), MIB):
                if answer.done():
                    break
                connection.send(bytes(whole[at : at + MIB]))
                await connection.sent()
            return await answer
        except (NoAnswer, OSError):
            answer.cancel()
            return None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_64_bodies_of_25_mib_at_once(database: Database, dsn: str, keyring: Keyring, tmp_path: Path) -> None:
    """Each is acknowledged and whole on the stream, or gets a 503; those are taken when they come again."""
    assert len(BODY) == 25 * MIB
    async with database.transaction() as tx:
        await store.create(tx, keyring, wanted("github", GITHUB), datetime.now(UTC), by="api")
    settings = {
        "database_url": dsn, "keyring": keyring.to_json(), "home": str(tmp_path), "drain_pause_s": "0",
        "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0",
    }  # fmt: skip
    async with posthouse("serve", settings=settings) as command:
        url = re.findall(r"public=(http://\S+)", await command.until("ready"))[0]
        before = most_memory(command.process.pid)
        answers = await asyncio.gather(*(deliver(url, number) for number in range(64)))
        after = most_memory(command.process.pid)
        put_off = [number for number, answer in enumerate(answers) if answer is None or answer.status != 200]
        again = [await deliver(url, number) for number in put_off[:3]]
    rows = await database.fetch(KEPT, hashlib.sha256(BODY).digest())
    statuses = Counter("none" if answer is None else answer.status for answer in answers)
    print(f"answers {dict(statuses)}; memory from {before / MIB:.0f} to {after / MIB:.0f} MiB; kept {len(rows)}")
    assert set(statuses) <= {200, 503, "none"}
    assert statuses[503] >= 1
    assert [answer and answer.status for answer in again] == [200] * 3
    acknowledged = set(range(64)) - set(put_off[3:])
    ids = [row["id"] for row in rows]
    assert {f"large-{number}" for number in acknowledged} <= set(ids)
    assert len(ids) == len(set(ids))
    assert {(row["size"], row["whole"]) for row in rows} == {(25 * MIB, True)}
    assert after - before < 3 * INFLIGHT
