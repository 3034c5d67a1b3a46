"""The way back: a thousand connections in, held, activated, out to a key of one's own, opened: equal. And in again."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwe as independent
from joserfc.jwk import OKPKey

from gateway import ids
from gateway.adoption.opening import Opening
from gateway.errors import Invalid
from gateway.vault.jwe import PrivateKey, Recipient, seal
from tests.connections.test_import import brought, count, line, with_tokens
from tests.web.conftest import Api, problem


def plain(told: dict[str, Any]) -> dict[str, Any]:
    """What an import's line and an export's have in common."""
    kept = ("tenant", "integration", "external_id", "end_user_id", "labels")
    profiles = {
        name: {
            k: sorted(v) if k == "scopes" else v
            for k, v in tokens.items()
            if k not in ("kind", "parameters", "token_type")
        }
        for name, tokens in told["access_profiles"].items()
    }
    return {**{name: told[name] for name in kept}, "access_profiles": profiles}


async def test_a_thousand_in_held_activated_out_opened_equal(
    api: Api, command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands; what comes out is what went in, only the owner of the key can read it, and it comes in again."""
    lines = [line(n) for n in range(1000)]
    source = tmp_path / "in.jsonl"
    bad = [
        json.dumps(line(2000, tenant="nobody")),
        '{"access_token": "secret-of-a-bad-line"',
        json.dumps(line(2001, external_id="nul \0")),
    ]
    source.write_text(
        "\n".join([*map(json.dumps, lines[:500]), bad[0], "", bad[1], bad[2], *map(json.dumps, lines[500:])])
    )

    assert await command("connections", "import", source, "--dry-run") == 1
    assert await count(api, "connections") == 0
    capsys.readouterr()
    assert await command("connections", "import", source, "--hold") == 1
    said = capsys.readouterr()
    assert said.out == "1000 imported, 0 updated, 0 unchanged, 3 refused\n"
    assert said.err.startswith("line 501: unknown_tenant:")
    assert "line 503: invalid:" in said.err
    assert "line 504: invalid:" in said.err
    assert "secret" not in said.err

    assert await command("connections", "import", source) == 1
    assert capsys.readouterr().out == "0 imported, 0 updated, 1000 unchanged, 3 refused\n"
    assert await command("connections", "activate") == 1
    assert "say which" in capsys.readouterr().err
    assert await command("connections", "activate", "--integration", "toy") == 0
    assert capsys.readouterr().out == "activated 1000 grants of 1000 connections\n"

    assert await command("connections", "keygen", tmp_path / "key.json") == 0
    recipient = capsys.readouterr().out.strip()
    assert await command("connections", "export", "--recipient", recipient, "--output", tmp_path / "sealed") == 0
    assert "access-7" not in (tmp_path / "sealed").read_text()
    out = tmp_path / "out.jsonl"
    assert (
        await command("connections", "open", tmp_path / "sealed", "--key", tmp_path / "key.json", "--output", out) == 0
    )
    for path in ("key.json", "out.jsonl"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o600
    opened = [json.loads(one) for one in out.read_text().splitlines()]
    by_id = {one["external_id"]: plain(one) for one in opened}
    assert by_id == {one["external_id"]: plain(one) for one in lines}
    assert await count(api, "audit") == 1000

    # The way back, into the same deployment: everything is as it was, accounts too, though they are kept as hashes only.
    first = (await api("GET", "/v1/connections", params={"external_id": "e-7"})).json()["items"][0]
    database = api.gateway.regions.home.database
    accounts = "SELECT array_agg(account_hash ORDER BY account_hash) FROM gateway.connection_accounts"
    before = await database.fetchval(accounts)
    await database.execute("DELETE FROM gateway.connections")
    capsys.readouterr()
    assert await command("connections", "import", out) == 0
    assert capsys.readouterr().out == "1000 imported, 0 updated, 0 unchanged, 0 refused\n"
    assert await database.fetchval(accounts) == before
    again = (await api("GET", "/v1/connections", params={"external_id": "e-7"})).json()["items"][0]
    assert (again["account_count"], again["state"]) == (1, "active")
    assert again["id"] != first["id"]

    assert (
        await command("connections", "open", tmp_path / "sealed", "--key", tmp_path / "key.json", "--output", out) == 1
    )
    assert await command("connections", "list", "--limit", "3") == 0
    assert await command("connections", "show", again["id"]) == 0
    shown = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    assert shown["grants"][0]["state"] == "active"


async def test_what_goes_out_and_to_whom(api: Api) -> None:
    """Everything that may still work, held ones too; nothing of what was revoked or closed. Each taking is audited."""
    made = await brought(api, line(0), line(1), with_tokens(2, scopes=[]), line(3), with_tokens(4, access_token=None))
    await brought(api, line(5), hold=True)
    key = PrivateKey.generate()
    database = api.gateway.regions.home.database
    revoked = ids.parse(ids.CONNECTION, made[1]["connection"])
    await database.execute("UPDATE gateway.grants SET state = 'revoked' WHERE connection_id = $1", revoked)
    assert (await api("DELETE", f"/v1/connections/{made[3]['connection']}")).status_code == 204

    answer = await api("POST", "/v1/connections/export", {"recipient": key.recipient.x})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    lines = sorted(
        (json.loads(one) for one in Opening(key, answer.text.splitlines())), key=lambda one: str(one["external_id"])
    )
    assert [one["external_id"] for one in lines] == ["e-0", "e-2", "e-4", "e-5"]
    assert [one["posthouse"]["state"] for one in lines] == ["active", "reauth_required", "active", "active"]
    assert [one["posthouse"]["grants"]["reader"]["held"] for one in lines] == [False, False, False, True]
    assert "access_token" not in lines[2]["access_profiles"]["reader"]
    rows = await database.fetch("SELECT * FROM gateway.audit")
    assert {(row["action"], row["tenant_id"], row["access_profile"], row["token_version"]) for row in rows} == {
        ("token.export", "acme", "reader", 1), ("token.export", "globex", "reader", 1),
    }  # fmt: skip
    assert len(rows) == 4
    assert {row["actor"] for row in rows} == {api.gateway.catalog.api_key(api.admin, api.gateway.clock.now()).id}  # type: ignore[union-attr]

    answer = await api("POST", "/v1/connections/export", {"recipient": key.recipient.x, "tenant": "globex"})
    assert len(list(Opening(key, answer.text.splitlines()))) == 1
    for odd in ("A" * 43, "x", "é" * 43, "A" * 42 + "="):
        problem(await api("POST", "/v1/connections/export", {"recipient": odd}), 422, "invalid")


def test_a_library_that_we_did_not_write_opens_our_messages_and_we_its() -> None:
    """RFC 7516 with RFC 8037, as everybody reads them."""
    key = PrivateKey.generate()
    jwk = OKPKey.import_key(json.loads(key.to_json()))
    theirs = independent.decrypt_compact(seal(key.recipient, b"ours"), jwk, algorithms=["ECDH-ES", "A256GCM"])
    assert theirs.plaintext == b"ours"
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": key.recipient.thumbprint}
    made = independent.encrypt_compact(header, b"theirs", jwk, algorithms=["ECDH-ES", "A256GCM"])
    assert key.open(made) == b"theirs"
    assert jwk.thumbprint() == key.recipient.thumbprint


def test_an_export_that_is_not_whole_is_refused() -> None:
    """Cut short, doubled, mixed, in another order, changed in any part, for another key: told by line."""
    key = PrivateKey.generate()

    def made(export: str = "e", count: int = 2) -> list[str]:
        places = [{"export": export, "line": n} for n in range(1, count + 2)]
        told = [{"n": n, "posthouse": places[n]} for n in range(count)]
        told.append({"end": {"connections": count, "unopened": 0, **places[-1]}})
        return [seal(key.recipient, json.dumps(one).encode()) for one in told]

    whole, other = made(), made("f")
    assert [json.loads(one)["n"] for one in Opening(key, whole)] == [0, 1]
    wrong = [
        whole[:2], [], [whole[1], whole[0], whole[2]], [whole[0], whole[0], whole[2]], [whole[0], other[1], whole[2]],
        [whole[0], whole[2]], [*whole, whole[0]], ["", *whole], ["a.b.c.d.e", *whole],
    ]  # fmt: skip
    parts = whole[0].split(".")
    for place in (0, 2, 3, 4):
        bent = "A" if parts[place][5] != "A" else "B"
        wrong.append(
            [".".join([*parts[:place], parts[place][:5] + bent + parts[place][6:], *parts[place + 1 :]]), *whole[1:]]
        )
    for lines in wrong:
        with pytest.raises(Invalid):
            list(Opening(key, lines))
    with pytest.raises(Invalid, match="line 1: it was sealed to another key"):
        list(Opening(PrivateKey.generate(), whole))
    assert key.recipient.x not in repr(PrivateKey.parse(key.to_json()).key)
    for low in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(Invalid):
            Recipient.parse(__import__("base64").urlsafe_b64encode(low).rstrip(b"=").decode())
