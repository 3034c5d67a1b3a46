"""One account is withdrawn at its provider, and connected again: what the platform sees, and how soon."""

from __future__ import annotations

import asyncio

import aiohttp

from gateway.client import ApiError, Client, Entry, NotIssued
from tests.demo.accounts import Account, Accounts
from tests.demo.connecting import Provider
from tests.demo.reckoning import check

PATIENCE_S = 15.0
PAUSE_S = 0.01


async def withdraw(provider: Provider, user: str) -> None:
    """What its user does at the sandbox's account page; the sandbox tells the app by webhook."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{provider.base_url}/admin/grants") as answer:
            grants = (await answer.json())["items"]
        [mine] = [grant["id"] for grant in grants if grant["user"] == user and grant["ended_at"] is None]
        async with http.post(f"{provider.base_url}/admin/grants/{mine}/revoke", json={}) as answer:
            answer.raise_for_status()


async def revoked(posthouse: Client, hasty: Client, accounts: Accounts) -> None:
    """The token is refused, the state moves, and the event says why. `hasty`: a client that never tries again."""
    one, loop = accounts.known[0], asyncio.get_running_loop()
    await withdraw(accounts.provider, one.user)
    began = loop.time()
    first = await _refusal(hasty, one)
    refused_s = loop.time() - began
    event = await _event(posthouse, one, "revoked")
    told_s = loop.time() - began
    said = {} if event is None else event.event.json()
    accounts.say(
        f"{one.user} took it back at the sandbox: the next read of its token {refused_s * 1000:.0f} ms later: {first}"
    )
    accounts.say(
        f"on the stream after {told_s * 1000:.0f} ms: {event.event.type if event else 'nothing'}; "
        f"{said.get('previous_state')} → {said.get('state')}, cause {said.get('cause')}, action {said.get('action')}"
    )
    last = await _settled(hasty, one)
    evidence = said.get("evidence") or {}
    accounts.checks.append(check("a revocation at the provider: token refused, state revoked, event with its evidence", [
        fault for fault, right in {
            f"first refusal {first}": first in ("checking", "connection_revoked"),
            f"then {last}": last == "connection_revoked",
            f"state {said.get('state')}, action {said.get('action')}":
                (said.get("state"), said.get("action")) == ("revoked", "reconnect"),
            f"evidence {evidence}": str(evidence.get("event", "")).startswith("evt_"),
        }.items() if not right
    ]))  # fmt: skip


async def repaired(posthouse: Client, accounts: Accounts) -> None:
    """The user connects again: the same connection, a new generation, and an event that silences the platform's mail."""
    one = accounts.known[0]
    done = await accounts.person(posthouse, one.user).connect(connection=one.connection)
    event = await _event(posthouse, one, "repaired")
    before, one.token = one.token, await accounts.read(posthouse, one.connection)
    status, answer = await accounts.provider.called(one.token, "/api/me")
    accounts.say(f"connected again: {done.state}, generation {one.token.generation}; its token works again: {status}")
    accounts.checks.append(check("a reconnect repairs the connection under its own id", [
        fault for fault, right in {
            f"{done.connection}, {done.state}": (done.connection, done.state) == (one.connection, "active"),
            "no event": event is not None,
            f"generation {one.token.generation}": one.token.generation == before.generation + 1,
            f"{status}": (status, answer.get("sub")) == (200, one.user),
        }.items() if not right
    ]))  # fmt: skip


async def _refusal(hasty: Client, one: Account) -> str:
    """The code of the first refusal of its token; "" where there was none for long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await hasty.token(one.connection)
                except ApiError as refusal:
                    return refusal.code
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        return ""


async def _settled(hasty: Client, one: Account) -> str:
    """The code of its refusal once nothing is being checked any more."""
    for _ in range(int(PATIENCE_S / 0.1)):
        try:
            await hasty.token(one.connection)
        except NotIssued as refusal:
            return refusal.code
        except ApiError:
            pass
        await asyncio.sleep(0.1)
    return ""


async def _event(posthouse: Client, one: Account, name: str) -> Entry | None:
    """The first event of that name; None where there is none for long."""
    type = f"posthouse.connection.{name}"
    try:
        async with asyncio.timeout(PATIENCE_S), posthouse.events(types=[type], connection=one.connection) as events:
            return await anext(aiter(events))
    except TimeoutError:
        return None
