"""A crowd asks for a token that has expired, and one call at the provider serves them all; then it is renewed before anybody has to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import aiohttp

from gateway.client import Client, Token
from tests.demo.accounts import MARGIN_S, TOKEN_LIFE_S, Accounts, asking
from tests.demo.connecting import Provider
from tests.demo.reckoning import check

USER, CALLERS = "user-2", 200
NEXT_LIFE_S = 20  # of the token that the crowd gets: its renewal is to be watched, and comes in the last fifth
LOOK_S = 0.05


async def stormed(posthouse: Client, accounts: Accounts, tenant: str) -> Token:
    """Nobody has used it yet, so it was left to expire. The token that all of them have."""
    done = await accounts.person(posthouse, USER).connect(**asking(tenant))
    await asyncio.sleep(TOKEN_LIFE_S + MARGIN_S)
    await _rule(accounts.provider, access_ttl_s=NEXT_LIFE_S)
    began = asyncio.get_running_loop().time()
    tokens = await asyncio.gather(*(accounts.read(posthouse, done.connection) for _ in range(CALLERS)))
    took_s = asyncio.get_running_loop().time() - began
    came = await _came(posthouse, done.connection)
    ended = [one["cause"] for one in await _grants(accounts.provider) if one["ended_at"] is not None]
    served, versions = len({token.access_token for token in tokens}), sorted({token.token_version for token in tokens})
    accounts.say(f"{USER} of {tenant}: its token has expired, and {CALLERS} ask for it at once")
    accounts.say(f"all are answered within {took_s * 1000:.0f} ms; token sets that came: {', '.join(came)}")
    accounts.checks.append(check(f"{CALLERS} callers, an expired token: one refresh, one new token, for all of them", [
        fault for fault, right in {
            f"{served} tokens": served == 1, f"versions {versions}": versions == [2],
            f"came by {came}": came == ["refresh", "consent"],
            f"grants ended: {ended}": "refresh_token_reused" not in ended,
        }.items() if not right
    ]))  # fmt: skip
    return tokens[0]


async def renewed(posthouse: Client, accounts: Accounts, token: Token) -> None:
    """It is in use now: the scheduler renews it ahead of its end, and the next reader waits for nobody."""
    assert token.expires_at is not None
    came = await _came(posthouse, token.connection)
    while len(came) < 3 and datetime.now(UTC) < token.expires_at:
        await asyncio.sleep(LOOK_S)
        came = await _came(posthouse, token.connection)
    left_s = (token.expires_at - datetime.now(UTC)).total_seconds()
    fresh = await accounts.read(posthouse, token.connection)
    status, _ = await accounts.provider.called(fresh, "/api/me")
    accounts.say(
        f"{left_s:.1f} s before its end it was renewed, unasked: version {token.token_version} → {fresh.token_version}"
    )
    accounts.checks.append(check("a token in use is renewed before it expires, and nobody waits for it", [
        fault for fault, right in {
            f"{left_s:.1f} s left": left_s > 0, f"came by {came}": came[0] == "refresh" and len(came) == 3,
            f"version {fresh.token_version}": fresh.token_version == token.token_version + 1, f"{status}": status == 200,
        }.items() if not right
    ]))  # fmt: skip
    await _rule(accounts.provider, access_ttl_s=TOKEN_LIFE_S)


async def _came(posthouse: Client, connection: str) -> list[str]:
    """How its token sets came, the newest first."""
    page = await posthouse.request("GET", f"/v1/connections/{connection}/rotations")
    return [one["source"] for one in page["items"]]


async def _grants(provider: Provider) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(f"{provider.base_url}/admin/grants") as answer:
        items: list[dict[str, Any]] = (await answer.json())["items"]
        return items


async def _rule(provider: Provider, **rules: Any) -> None:
    """Its lifetimes, from the next token on."""
    async with aiohttp.ClientSession() as http, http.patch(f"{provider.base_url}/admin/rules", json=rules) as answer:
        answer.raise_for_status()
