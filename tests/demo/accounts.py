"""Two accounts at the sandbox, and what a platform does with them: connect, mend, read tokens, call, be called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.client import Client, Entry, NotIssued, Token
from tests.demo.connecting import NAME, PROFILE, Connected, Person, Provider, fingerprint
from tests.demo.reckoning import Check, check

TOKEN_LIFE_S = 4  # of the sandbox's access tokens: one is to expire before our eyes
MARGIN_S = 0.1
PATIENCE_S = 30.0


@dataclass(slots=True)
class Account:
    """A connected one."""

    user: str
    tenant: str
    connection: str
    token: Token
    read_at_s: float  # of the event loop's clock: the token was issued before


@dataclass
class Accounts:
    """The platform's backend. `secrets` gathers what it sees and must show nobody, `checks` what came of it all."""

    provider: Provider
    say: Callable[[str], None]
    secrets: set[str] = field(repr=False)
    checks: list[Check] = field(default_factory=list)
    known: list[Account] = field(default_factory=list)

    async def whole(self, posthouse: Client, user: str, tenant: str) -> None:
        """One who agrees to everything."""
        done = await self.person(posthouse, user).connect(**asking(tenant))
        self.say(f"{user} of {tenant}: asked for {_list(done.asked)}; agreed; the connection is {done.state}")
        await self._take(posthouse, user, tenant, done)
        self._check(f"{user} agreed to everything and is connected",
                    {done.state: done.state == "active", str(done.page): done.page is None})  # fmt: skip

    async def partly(self, posthouse: Client, user: str, tenant: str) -> None:
        """One who unticks a permission that is needed, and agrees to it by a second link."""
        required, person = self.provider.required, self.person(posthouse, user)
        first = await person.connect(untick=[required], **asking(tenant))
        self.say(f"{user} of {tenant}: unticked {required}; told: {first.page}; {first.state} ({first.reason})")
        do = await _refusal(posthouse, first.connection)
        self.say(f"its token is not handed out: what to do is {do or 'not said'}")
        mended = await person.connect(connection=first.connection, scopes="missing")
        self.say(f"the link that mends it asked for {_list(mended.asked)}; agreed; the connection is {mended.state}")
        self._check(f"{user} left out a permission that is needed: reauth_required, scopes_missing, and no token", {
            f"{first.state} {first.reason}": (first.state, first.reason) == ("reauth_required", "scopes_missing"),
            f"missing {first.missing}": first.missing == (required,),
            "the page did not say so": first.page == "Some permissions are missing",
            f"do {do}": do == "reconnect",
        })  # fmt: skip
        self._check("the link that mends it asks for just that, keeps the connection's id, and makes it active", {
            f"asked for {_list(mended.asked)}": mended.asked == {required},
            "another id": mended.connection == first.connection,
            f"{mended.state}, missing {mended.missing}": (mended.state, mended.missing) == ("active", ()),
        })  # fmt: skip
        await self._take(posthouse, user, tenant, mended)

    async def told(self, posthouse: Client) -> None:
        """The sandbox tells by webhook that somebody wrote to them."""
        due = {await self.provider.write_to(one.user, f"Hello {one.user}"): one for one in self.known}
        found: dict[str, Entry] = {}
        try:
            async with asyncio.timeout(PATIENCE_S), posthouse.events(types=[f"posthouse.delivery.{NAME}"]) as events:
                async for entry in events:
                    found[entry.event.json()["data"]["id"]] = entry
                    if found.keys() >= due.keys():
                        break
        except TimeoutError:
            self.say("the stream does not show the sandbox's webhooks")
        for id, entry in found.items():
            whose = f"{due[id].user} of {', '.join(entry.tenants) or 'nobody'}" if id in due else "a stranger"
            self.say(f"on the stream: {entry.event.type} for {whose}")
        self._check("the sandbox's webhooks are on the stream, as their account's connection's and tenant's", {
            one.user: id in found and (found[id].connections, found[id].tenants) == ((one.connection,), (one.tenant,))
            for id, one in due.items()
        })  # fmt: skip

    async def outlived(self, posthouse: Client) -> None:
        """Their tokens expire; the next read brings new ones."""
        ends_s = max(one.read_at_s for one in self.known) + TOKEN_LIFE_S + MARGIN_S
        await asyncio.sleep(max(0.0, ends_s - asyncio.get_running_loop().time()))
        statuses = [(await self.provider.called(one.token, "/api/me"))[0] for one in self.known]
        self.say(f"{TOKEN_LIFE_S} s later the sandbox's API answers the same tokens with {_list(map(str, statuses))}")
        await self.read_again(posthouse, "an expired token is refused by the API, and the next read brings one that works",
                              expired={f"{status}": status == 401 for status in statuses})  # fmt: skip

    async def read_again(self, posthouse: Client, what: str, expired: Mapping[str, bool] | None = None) -> None:
        """A read of each token that must bring a newer one, and a call with it."""
        right = dict(expired or {})
        for one in self.known:
            before, one.token = one.token, await self.read(posthouse, one.connection)
            status, answer = await self.provider.called(one.token, "/api/me")
            self.say(
                f"{one.user}: version {before.token_version} → {one.token.token_version}: {fingerprint(one.token)}"
            )
            right[f"{one.user}: {status}"] = (status, answer.get("sub")) == (200, one.user)
            right[f"{one.user}: the same token"] = one.token.token_version > before.token_version
        self._check(what, right)

    async def _take(self, posthouse: Client, user: str, tenant: str, done: Connected) -> None:
        """Read the token, and call the API with it."""
        token = await self.read(posthouse, done.connection)
        self.known.append(Account(user, tenant, done.connection, token, asyncio.get_running_loop().time()))
        self.say(f"its token, version {token.token_version}: {fingerprint(token)}")
        status, answer = await self.provider.called(token, "/api/me")
        self.say(f"the sandbox's API with it: {status}, {answer.get('name', 'nobody')}")
        self._check(f"the token of {user} works at the sandbox's API, as that user's, for all that was agreed to", {
            f"{status}": status == 200, "another user's": answer.get("sub") == user,
            "other scopes": set(answer.get("scopes", ())) == set(token.scopes) == self.provider.scopes,
        })  # fmt: skip

    async def read(self, posthouse: Client, connection: str) -> Token:
        token = await posthouse.token(connection)
        self.secrets.add(token.access_token)
        return token

    def person(self, posthouse: Client, user: str) -> Person:
        return Person(posthouse, self.provider, user, self.secrets)

    def _check(self, what: str, right: Mapping[str, bool]) -> None:
        self.checks.append(check(what, [fault for fault, so in right.items() if not so]))


def asking(tenant: str) -> dict[str, Any]:
    """A connect session for somebody of that tenant."""
    return {"tenant": tenant, "integration": NAME, "access_profiles": [PROFILE], "end_user_id": f"someone-at-{tenant}"}


async def _refusal(posthouse: Client, connection: str) -> str:
    """What the refusal of a token says is to be done; "" where one is handed out."""
    try:
        await posthouse.token(connection)
    except NotIssued as refusal:
        return refusal.do
    return ""


def _list(of: Iterable[str]) -> str:
    return ", ".join(sorted(of))
