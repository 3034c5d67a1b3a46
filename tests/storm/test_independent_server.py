"""The storm against an authorization server that we did not write, with rotation and reuse detection on."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import ids
from tests.connect.browser import Browser, query_of
from tests.ops.processes import free_port
from tests.storm.oidc import CLIENT_ID, CLIENT_SECRET, OidcServer, consent, missing, oidc_server
from tests.storm.town import Account, Town

BACK = "https://app.example.com/connected"
PROCESSES, CALLERS = 8, 400

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")


async def connected(town: Town, server: OidcServer, url: str, public: str) -> Account:
    """A whole connect session: our button, their login and consent, our callback, and the platform's code."""
    body = {
        "name": "theirs", "provider": "generic-oauth2", "client_id": CLIENT_ID, "client_secrets": [CLIENT_SECRET],
        "settings": server.settings, "access_profiles": {"reader": {"required": ["openid"], "optional": []}},
        "return_urls": [BACK],
    }  # fmt: skip
    await town.crowd.call(url, "PUT", "/v1/tenants/acme", {})
    await town.crowd.call(url, "POST", "/v1/integrations", body)
    asked = {
        "tenant": "acme", "integration": "theirs", "access_profiles": ["reader"], "end_user_id": "u-1", "return_url": BACK,
    }  # fmt: skip
    made = await town.crowd.call(url, "POST", "/v1/connect/sessions", asked)
    browser = Browser()
    try:
        pressed = await browser.press(await browser.get(made["url"]))
        callback = await consent(browser, pressed.headers["location"], "ada", until=public)
        told = query_of(await browser.get(callback))
    finally:
        await browser.close()
    done: Any = await town.crowd.call(
        url, "POST", f"/v1/connect/sessions/{made['id']}/complete", {"code": told["code"]}
    )
    assert done["connection_state"] == "active"
    connection = ids.parse(ids.CONNECTION, done["connection"])
    assert connection is not None
    return Account(connection, "")


async def test_one_refresh_at_a_server_that_detects_reuse(town: Town) -> None:
    """400 callers, one call, one token. Then somebody spends the old refresh token: that the server revokes everything for it
    shows what a second call would have cost."""
    port = free_port()
    public = f"http://127.0.0.1:{port}"
    async with oidc_server(f"{public}/oauth/callback/theirs") as server:
        town.fleet.settings["public_url"] = public
        [door] = await town.fleet.start(settings={"public_listen": f"127.0.0.1:{port}"})
        workers = [door, *await town.fleet.start(PROCESSES - 1)]
        account = await connected(town, server, door.url, public)
        [(consented)] = server.of("success", "authorization_code")
        for round in (2, 3):
            await town.expire([account])
            told = await town.crowd.storm([w.url for w in workers], account.path, CALLERS, patient=False)
            assert {(one.status, one.version) for one in told} == {(200, round)}, town.crowd.statuses
            assert len({one.said["access_token"] for one in told}) == 1
            assert len(server.of("success")) == round - 1
        assert not server.of("error")

        first, second = server.of("success")
        assert first["spent"] == consented["refresh_token"]
        assert (second["spent"], second["refresh_token"] != second["spent"]) == (first["refresh_token"], True)
        status, said = await server.refresh(first["spent"])
        assert (status, said["error"]) == (400, "invalid_grant")
        assert server.of("error")[-1]["why"] == "refresh token already used"
        assert server.of("revoked"), "the whole grant"
        status, said = await server.refresh(second["refresh_token"])
        assert (status, said["error"]) == (400, "invalid_grant"), "the newest one is dead too"
        await town.expire([account])
        [one] = await town.crowd.storm([door.url], account.path, 1, patient=False)
        assert one.code == "checking", "and that is what we would have had"
