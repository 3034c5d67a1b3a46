"""The provider of a story: the sandbox over real HTTP, which knows who spent what, and loses answers when it is told to.

Every process calls it at an address of its own (127.0.0.x, all of them this machine), so it knows which one a call came from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from gateway import listen
from gateway.clock import Clock
from gateway.sandbox import Sandbox, oauth
from gateway.sandbox.records import Grant
from tests.fakes.misbehaving import Turn, html
from tests.fakes.provider import CALLBACK, FakeProvider, stopped
from tests.storm.town import SCOPES, VERIFIER, challenge

# What a call may meet. Acted or not, answered or not: every pair is there, and answers that are none.
TROUBLES = (
    "answer_lost", "answer_hangs", "slow", "slow_answer", "close", "hang", "unavailable", "bad_gateway", "html", "limited",
    "invalid_grant",
)  # fmt: skip


@dataclass(slots=True)
class Spend:
    """One call with a refresh token. `good`: tokens were made for it; `answered`: and they were sent."""

    address: str
    token: str = field(repr=False)
    came_at: datetime
    at: datetime  # when it acted
    trouble: str | None
    acted: bool = False  # the rules of rotation were asked
    good: bool = False
    answered: bool = False


@dataclass
class Theirs:
    """The provider, and what was done to it in this story."""

    fake: FakeProvider
    port: int
    troubles: list[str] = field(default_factory=list)  # of the next calls
    spends: list[Spend] = field(default_factory=list)
    lied: int = 0  # how often it called a good token dead
    busy: int = 0  # calls that it is at

    def begin(self, rotation: str, grace_s: int) -> None:
        """For a new story."""
        self.fake.rules(rotation=rotation, grace_s=grace_s)
        self.fake.behave()
        self.fake.misbehave("refresh_token", self._spent, times=None)
        self.fake.calls.clear()
        self.fake.bodies.clear()
        self.fake.sandbox.tokens.clear()
        self.fake.sandbox.grants.clear()
        self.troubles.clear()
        self.spends.clear()
        self.lied = 0

    def consent(self) -> dict[str, Any]:
        """A user agrees: the token answer."""
        sandbox, client = self.fake.sandbox, self.fake.client
        asked = {
            "response_type": "code", "scope": " ".join(SCOPES), "code_challenge": challenge(), "code_challenge_method": "S256",
        }  # fmt: skip
        consent = oauth.begin(sandbox, client, CALLBACK, asked)
        _, code = oauth.decide(sandbox, consent.id, "user-1", SCOPES, True)
        said = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return oauth.exchange(sandbox, client, said)

    def grant(self, id: str) -> Grant:
        return self.fake.sandbox.grants[id]

    def newest(self, grant: str) -> str:
        """The refresh token of a grant that was made last."""
        tokens = self.fake.sandbox.tokens.items()
        return [value for value, token in tokens if token.kind == "refresh_token" and token.grant.id == grant][-1]

    async def _spent(self, turn: Turn) -> None:
        trouble = self.troubles.pop(0) if self.troubles else None
        token = parse_qs(turn.body.decode())["refresh_token"][0]
        now = self.fake.sandbox.clock.now()
        spend = Spend(turn.scope["server"][0], token, now, now, trouble)
        self.spends.append(spend)
        self.busy += 1
        try:
            await self._met(turn, spend)
        finally:
            self.busy -= 1

    async def _met(self, turn: Turn, spend: Spend) -> None:
        trouble = spend.trouble
        if trouble in ("slow", "hang"):
            await turn.gate.wait()
        if trouble in ("close", "hang"):
            await turn.cut()
        elif trouble == "unavailable":
            await turn.json(503, {"error": "temporarily_unavailable"})
        elif trouble == "html":
            await html(turn)
        elif trouble == "limited":
            await turn.json(429, {"error": "slow_down"}, (b"retry-after", b"7"))
        elif trouble == "invalid_grant":
            self.lied += 1
            await turn.json(400, {"error": "invalid_grant"})
        else:
            await self._acted(turn, spend)

    async def _acted(self, turn: Turn, spend: Spend) -> None:
        spend.at = self.fake.sandbox.clock.now()
        status, headers, body = await turn.proceed()
        spend.acted, spend.good = True, status == 200
        if spend.trouble in ("answer_hangs", "slow_answer"):
            await turn.gate.wait()
        if spend.trouble in ("answer_lost", "answer_hangs"):
            await turn.cut()
        elif spend.trouble == "bad_gateway":
            await turn.answer(502, [(b"content-type", b"text/html")], b"<h1>Bad gateway</h1>")
        else:
            spend.answered = True
            await turn.answer(status, headers, body)


@asynccontextmanager
async def provider(clock: Clock) -> AsyncIterator[Theirs]:
    """On a free port of every address of this machine."""
    bound = listen.bind("0.0.0.0:0", "provider")
    port = bound.getsockname()[1]
    fake = FakeProvider(Sandbox(f"http://localhost:{port}", clock))
    fake.client = fake.sandbox.register("A platform", [CALLBACK])
    server = listen.server(fake)
    serving = asyncio.create_task(server.serve([bound]))
    try:
        yield Theirs(fake, port)
    finally:
        await stopped(server, serving)
        bound.close()
        await fake.sandbox.webhooks.close()
