"""`posthouse sandbox`: what it prints is what works."""

from __future__ import annotations

import re
import signal
import tomllib

import aiohttp
import pytest

from gateway.cli import run
from tests.fakes.browser import Forms
from tests.ops.processes import Command, posthouse


async def said(command: Command) -> str:
    await command.until("posthouse sandbox is ready")
    await command.until("POSTHOUSE_OUTBOUND_ALLOW")
    return "".join(command.out)


async def test_it_tells_how_to_use_it_and_a_seed_keeps_its_secrets() -> None:
    """The snippet is TOML, the secrets are the client's, SIGTERM and SIGINT end it."""
    made = []
    for number in (signal.SIGTERM, signal.SIGINT):
        arguments = (
            "--listen",
            "127.0.0.1:0",
            "--seed",
            "s",
            "--gateway",
            "https://hooks.example.com/",
            "--integration",
            "my-box",
        )
        async with posthouse("sandbox", *arguments, settings={}) as command:
            text = await said(command)
            snippet = text.split("posthouse.toml:")[1].split("environment of")[0]
            told = tomllib.loads(snippet)["integrations"]["my-box"]
            exported = dict(re.findall(r"export (\w+)='(.*)'", text))
            secret = exported[told["client_secrets"][0]["env"]]
            assert exported[told["signing_secrets"][0]["env"]].startswith("whsec_")
            made.append(exported)
            base = told["settings"]["base_url"]
            async with aiohttp.ClientSession(base) as http:
                fields = {"grant_type": "client_credentials", "client_id": told["client_id"], "client_secret": secret}
                async with http.post("/oauth/token", data=fields) as answer:
                    assert answer.status == 200
                asked = {
                    "client_id": told["client_id"], "redirect_uri": "https://hooks.example.com/oauth/callback/my-box",
                    "response_type": "code", "code_challenge": "x" * 43, "code_challenge_method": "S256",
                }  # fmt: skip
                async with http.get("/oauth/authorize", params=asked) as answer:
                    assert len(Forms(await answer.text()).found) == 1
            command.process.send_signal(number)
            assert await command.ended() == 0
            assert await command.errors() == ""
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--listen", "8090"], "--listen must be host:port"),
        (["--listen", "127.0.0.1:99999"], "--listen must be host:port"),
        (["--gateway", "hooks.example.com"], "--gateway must be an http(s) URL"),
        (["--integration", "My Box"], "--integration must be"),
        (["--rotation", "often"], "often"),
        (["--access-ttl-s", "0"], "access-ttl-s"),
    ],
)
def test_what_it_cannot_do_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with status 1 or 2."""
    assert run(["sandbox", *arguments]) in (1, 2)
    errors = capsys.readouterr().err
    assert line in errors
    assert errors.count("\n") == 1
