"""`posthouse serve` in a process of its own, told to say all it can: what its servers and libraries print on the way."""

from __future__ import annotations

import asyncio
import json
import signal
from base64 import b64decode
from secrets import token_hex
from urllib.parse import urlsplit

import httpx

from gateway.settings import Settings
from gateway.vault.keyring import generate
from tests.canaries.search import search
from tests.ops.processes import posthouse
from tests.ops.test_serve import urls


async def sent(url: str, text: str) -> bytes:
    """What comes back for these bytes, which need be no HTTP."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(text.encode())
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_process_of_its_own_says_nothing_either(settings: Settings) -> None:
    """Requests that are none, with secrets in every part; a start without its keys; a whole life at debug level."""
    assert settings.database_url is not None
    assert settings.keyring is not None
    dsn, keyring = settings.database_url.get_secret_value(), settings.keyring.get_secret_value()
    stray = f"stray-{token_hex(12)}"
    other = generate().to_json()
    keys = [
        key for text in (keyring, other) for key in (*json.loads(text)["keys"].values(), json.loads(text)["hashing"])
    ]
    canaries: dict[str, str | bytes] = {"stray": stray, "DSN password": dsn.partition("password=")[2]}
    canaries |= {f"key {n}": key for n, key in enumerate(keys)}
    canaries |= {f"raw key {n}": b64decode(key) for n, key in enumerate(keys)}
    environment = {
        "database_url": dsn, "keyring": keyring, "home": str(settings.home), "drain_pause_s": "0", "log_level": "debug",
        "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0",
    }  # fmt: skip
    heard = b""
    async with posthouse("serve", settings=environment) as command:
        public, private = await urls(command)
        for url in (public, private):
            for text in (
                f"{stray}\r\n\r\n", f"GET /{stray} {stray}\r\n\r\n", f"GET /v1/{stray} HTTP/1.1\r\n{stray}\r\n\r\n",
                f"POST /hooks/x HTTP/1.1\r\nhost: x\r\ncontent-length: {stray}\r\n\r\n",
                f"POST /hooks/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{stray}\r\n{stray}",
                f"GET /oauth/callback/x?code={stray}&state={stray} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            ):  # fmt: skip
                heard += await sent(url, text)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                for path in (f"/v1/keys?key={stray}", f"/connect/{stray}", "/v1/connections/import", "/metrics"):
                    answer = await http.post(path, content=stray, headers={"authorization": f"Bearer {stray}"})
                    heard += answer.content
                heard += (await http.get("/metrics")).content
        command.process.send_signal(signal.SIGTERM)
        assert await command.ended() == 0
        said = "".join(command.out) + await command.rest() + await command.errors()
    async with posthouse("serve", settings=environment | {"keyring": other}) as command:
        assert await command.ended() == 1
        wrong = await command.rest() + await command.errors()
    assert "serve.ended" in said
    assert "http.request" in said
    assert "keyring" in wrong
    assert search(canaries, [("answers", heard), ("a life", said.encode()), ("a wrong keyring", wrong.encode())]) == []
