"""What is said of a connection's renewal is what happens to it: in sentences, over HTTP, on the command line."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import cli, ids, traffic
from gateway.connections import store
from gateway.database import Database
from gateway.vault.keyring import Keyring
from subscriptions import explain, outlook
from subscriptions.explain import Explained
from subscriptions.sentences import between, spans
from tests.subscriptions.conftest import HOUR_S, Works
from tests.tokens.conftest import Account
from tests.web.conftest import served


async def told(works: Works, account: Account) -> Explained:
    gateway = works.town.gateway
    found = await store.find(works.database, account.id)
    assert found is not None
    return await explain.explain(gateway, gateway.regions.home, found)


async def test_what_is_used(works: Works) -> None:
    """Use, moment, window and expiry stand in the sentence; and at that moment it is renewed."""
    account = await works.connected()
    before = await told(works, account)
    assert (before.act, before.reason, before.used_at) == ("look", "changed", None)
    assert "by then it is known whether anybody uses it" in " ".join(before.sentences)
    await works.used(account)
    await works.after(HOUR_S / 2 + 5)
    said = await told(works, account)
    [grant] = said.grants
    assert (said.act, said.reason, grant.reason) == ("renew", "used", "used")
    assert grant.at == said.at
    assert grant.window is not None
    assert said.at is not None
    assert grant.window[0] <= said.at <= grant.window[1]
    text = "\n".join(said.sentences)
    assert "is active. Its tokens were last read 30 min" in text
    assert re.search(
        r"reader: renewed at 20\S+ \S+ UTC, a moment between .+ and .+: it was used within its last life", text
    )
    assert "Quiet hours (UTC), learnt from" in text
    assert "sandbox is called" in text
    await works.after((said.at - said.now).total_seconds() + 1)
    assert works.calls == 1


async def test_every_reason_has_its_words(works: Works) -> None:
    """What bars a grant is said, with what lets it go on."""
    account = await works.connected()

    async def reader() -> Any:
        return (await told(works, account)).grants[0]

    grant = await reader()
    assert grant.reason == "keep_alive"
    assert "dies of idleness on" in grant.sentence
    assert grant.keep_by is not None
    await account.set(held=True)
    assert "held before a cut-over" in (await reader()).sentence
    await account.set(held=False, restored=True)
    assert "posthouse restored --release" in (await reader()).sentence
    await account.set(restored=False, contested=True)
    assert "a check is to decide" in (await reader()).sentence
    await account.set(contested=False, state="revoked")
    assert "a grant that is revoked" in (await reader()).sentence


async def test_what_is_in_the_way(works: Works) -> None:
    """A failure, the breaker of its provider, and the guard."""
    account = await works.connected()
    await works.used(account)
    works.town.provider.misbehave("refresh_token", "server_error", times=None)
    await works.after(0.96 * HOUR_S)
    said = await told(works, account)
    assert said.tries == 1
    assert "the last try failed" in said.grants[0].sentence
    assert "It has failed 1 time in a row" in "\n".join(said.sentences)
    integration = works.town.gateway.catalog.integration("sandbox")
    assert integration is not None
    host = works.town.provider.base_url.removeprefix("http://")
    await works.database.execute(
        "INSERT INTO gateway.breakers (scope, provider, kind, host, why, code, since, canary_at, pause_s) "
        "VALUES ($1, 'sandbox', 'token', $2, 'failing', 'server_error', gateway.now(), gateway.now() + interval '1 minute', 60)",
        f"token:{host}", host,
    )  # fmt: skip
    await works.database.execute(
        "INSERT INTO gateway.provider_conditions (provider, degraded_since, error_class) VALUES ($1, gateway.now(), 'refused') "
        "ON CONFLICT (provider) DO UPDATE SET degraded_since = gateway.now(), error_class = 'refused'",
        integration.condition,
    )
    said = await told(works, account)
    assert [one.why for one in said.obstacles] == ["failing", "guarded"]
    text = "\n".join(said.sentences)
    assert f"{host} gives no usable answers to token calls (server_error), since" in text
    assert "calls everybody's grants dead since" in text


async def test_over_http(works: Works) -> None:
    """The same as JSON; the coming day by provider; and a renewal that somebody asks for."""
    account = await works.connected()
    await works.used(account)
    await works.after(HOUR_S / 2 + 5)
    async with served(works.town.gateway) as client:
        path = f"{account.path}/renewal"
        said = (await client("GET", path)).json()
        assert (said["act"], said["reason"]) == ("renew", "used")
        assert datetime.fromisoformat(said["access_profiles"]["reader"]["at"]) == datetime.fromisoformat(said["at"])
        [provider] = (await client("GET", "/v1/renewals/plan")).json()["providers"]
        assert (provider["provider"], sum(provider["renewals"]), provider["looks"]) == ("sandbox", 1, 0)
        answer = await client("POST", path)
        assert answer.status_code == 202
        assert answer.json()["reason"] == "asked"
        assert await works.scheduler.run_once() == 1
        assert works.calls == 1
        assert (await client("GET", path)).json()["reason"] == "used"
        assert (
            await client(
                "GET", f"/v1/connections/{ids.show(ids.CONNECTION, ids.uuid7(works.town.gateway.clock.now()))}/renewal"
            )
        ).status_code == 404
        reader = await client.key("reader")
        assert (await client("GET", path, key=reader)).status_code == 200
        assert (await client("POST", path, key=reader)).status_code == 403
        await client("DELETE", account.path)
        assert (await client("POST", path)).status_code == 409
        assert (await client("GET", path)).json()["act"] == "nothing"
    assert works.calls == 1


async def test_whoever_asks_does_not_overrule_a_doubt(works: Works) -> None:
    """Asked for or not: nothing is sent for a grant that is in doubt."""
    account = await works.connected()
    await account.set(contested=True)
    async with served(works.town.gateway) as client:
        assert (await client("POST", f"{account.path}/renewal")).status_code == 202
    assert await works.scheduler.run_once() == 1
    assert works.calls == 0
    assert (await works.row(account)).reason == "in_doubt"


async def test_commands(
    works: Works, dsn: str, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """`posthouse renewals explain`, `plan` and `now`."""
    account = await works.connected()
    await works.used(account)
    await works.after(HOUR_S / 2 + 5)
    for name, value in (("DATABASE_URL", dsn), ("KEYRING", keyring.to_json()), ("HOME", str(tmp_path))):
        monkeypatch.setenv(f"POSTHOUSE_{name}", value)
    shown = ids.show(ids.CONNECTION, account.id)

    async def command(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(cli.run, ["renewals", *arguments])
        out = capsys.readouterr()
        return status, out.out, out.err

    status, out, _ = await command("explain", shown)
    assert status == 0
    assert "reader: renewed at" in out
    status, out, _ = await command("explain", shown, "--json")
    assert json.loads(out)["reason"] == "used"
    status, out, _ = await command("plan")
    assert status == 0
    assert re.search(r"sandbox +.*█.* 1 renewals, 0 looks", out)
    assert "UTC" in out
    assert sum(json.loads((await command("plan", "--json"))[1])["providers"][0]["renewals"]) == 1
    status, out, _ = await command("now", shown)
    assert (status, out.startswith("asked")) == (0, True)
    assert (await works.row(account)).reason == "asked"
    status, _, err = await command("explain", "conn_nonsense")
    assert status == 1
    assert "there is no such connection" in err


def test_bars_and_spans() -> None:
    """As high as their share, one column a slot or several slots a column."""
    assert outlook.bars([0, 1, 8, 4], 4, 8) == " ▁█▄"
    assert outlook.bars([1, 1, 4, 0], 2, 4) == "▄█"
    assert outlook.highest([1, 1, 4, 0], 2) == 4
    assert spans([5, 0, 1, 2, 23]) == "0-2, 5, 23"
    at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    assert between(at, datetime.fromisoformat("2026-01-02T02:10:00+00:00")) == "1 d 2 h"
    assert between(at, at) == "0 s"
    assert outlook.axis(at, 48).startswith("00:00       06:00       12:00       18:00")


async def test_the_plot_of_nothing(database: Database) -> None:
    """No renewals, no hours: said plainly."""
    assert await traffic.hours(database, []) == {}
    assert outlook.bars([0] * 96, 48, 0).strip() == ""
