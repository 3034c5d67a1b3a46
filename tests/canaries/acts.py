"""What is done to a gateway full of canaries: every route at its best, and every failure that has secrets at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import orjson

from gateway import ids
from gateway.connect.secrets import Proof
from gateway.vault.jwe import PrivateKey
from tests.canaries.echoes import ECHOES, odd_tokens
from tests.canaries.hearing import UNKNOWN_NAME, Canaries, Ear, of_provider
from tests.connect.browser import Browser, query_of
from tests.connect.conftest import Town, declare
from tests.fakes.misbehaving import changed
from tests.indigestible import incident, set_aside, unwell
from tests.signers_b import gitlab_push, gitlab_token
from tests.web.conftest import ROUTES

LONG_AGO = "2020-01-01T00:00:00Z"


class Watched(Town):
    """A town in which every answer of the gateway is heard, by whatever client."""

    ear: Ear

    @classmethod
    def of(cls, town: Town, ear: Ear) -> Watched:
        made = cls(town.gateway, town.api, town.provider, town.browsers)
        made.ear = ear
        ear.listen(town.api.http)
        return made

    def browser(self) -> Browser:
        made = super().browser()
        self.ear.listen(made.http)
        return made


@dataclass
class Story:
    """One gateway's life with canaries."""

    town: Watched
    canaries: Canaries
    public: str
    unique: str  # of this run: what we choose ourselves is known by it
    recipient: PrivateKey = field(default_factory=PrivateKey.generate, repr=False)
    _number: int = 0

    def secret(self, kind: str) -> str:
        """One of ours, with characters that each encoding writes otherwise."""
        self._number += 1
        made = f"{self.unique}/{self._number}+{kind.replace(' ', '-')}=ü~"
        self.canaries.add(kind, made)
        return made

    def ascii(self, kind: str) -> str:
        """One that may stand in a header or a path."""
        self._number += 1
        made = f"{self.unique}.{self._number}.{kind.replace(' ', '-')}"
        self.canaries.add(kind, made)
        return made

    def hex(self, kind: str) -> str:
        """One as many providers make them."""
        made = sha256(self.ascii(kind).encode()).hexdigest()[:40]
        self.canaries.add(kind, made)
        return made

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """A request that succeeds; its JSON, if it has any."""
        answer = await self.town.api(method, path, body, **more)
        assert answer.status_code < 300, (method, path, answer.text)
        return answer.json() if answer.content and "json" in answer.headers["content-type"] else answer

    # --- what a platform does in its days

    async def connected(self, **more: Any) -> str:
        """An account that is connected, by way of everything that happens then; its path."""
        made = await self.town.ask(**more)
        self.canaries.add("link token", made["url"].rpartition("/")[2])
        mine = self.town.browser()
        told = query_of(await self.town.consent(made, mine))
        done = await self.town.complete(made, told["code"])
        return f"/v1/connections/{done['connection']}"

    async def consents(self) -> None:
        """Connected, read twice, reconnected, denied; a proof of a consent under way is known to us."""
        self.town.provider.misbehave("authorization_code", changed(id_token=self.ascii("id token")))
        path = await self.connected(access_profiles=["reader", "writer"])
        await self.ask("GET", f"{path}/token?access_profile=reader")
        await self.connected(connection=path.rpartition("/")[2], access_profiles=["reader"])
        await self.town.consent(await self.town.ask(), deny=True)
        made, mine = await self.town.ask(end_user_id="u-9"), self.town.browser()
        await self.town.press(made, mine)
        region, session = self.town.gateway.regions.home, ids.parse(ids.SESSION, made["id"])
        assert session is not None
        sealed = await region.database.fetchval(
            "SELECT sealed_verifier FROM gateway.connect_sessions WHERE id = $1", session
        )
        proof = Proof.opened(region.keyring, region.name, session, sealed)
        self.canaries.add("nonce", proof.nonce)
        self.canaries.add("PKCE verifier", proof.verifier)
        for page in ("/v1/connect/sessions", f"/v1/connect/sessions/{made['id']}", "/v1/connections", path):
            await self.ask("GET", page)

    async def adopted(self) -> None:
        """Lines good and bad, held, activated, exported, and asked for a second time."""
        await self.imported(hold=True)
        await self.ask("POST", "/v1/connections/activate", {"tenant": "acme"})
        await self.ask("POST", "/v1/connections/hold", {"integration": "other"})
        bad: list[dict[str, Any]] = [self.line(access_token=self.secret("refused token"), expires_at=self.secret("odd time")),
               self.line() | {"tenant": self.ascii("no tenant")}, {**self.line(), self.secret(UNKNOWN_NAME): self.secret("odd value")},
               self.line() | {"access_profiles": self.secret("odd profiles")}]  # fmt: skip
        told = await self.ask("POST", "/v1/connections/import", {"connections": bad})
        assert [one["result"] for one in told["results"]] == ["refused"] * 4
        export = await self.ask("POST", "/v1/connections/export", {"recipient": self.recipient.recipient.x})
        assert len(export.text.splitlines()) > 2
        self.canaries.add("export private key", orjson.loads(self.recipient.to_json())["d"])

    def line(self, **tokens: Any) -> dict[str, Any]:
        self._number += 1
        known = {"access_token": self.secret("access token"), "refresh_token": self.hex("refresh token")}
        return {
            "tenant": "acme", "integration": "sandbox", "external_id": f"e-{self._number}",
            "access_profiles": {"reader": {**known, "expires_at": LONG_AGO, **tokens}},
        }  # fmt: skip

    async def imported(self, *, hold: bool = False, **tokens: Any) -> str:
        """A connection, whose token has expired unless told otherwise; its path."""
        told = await self.ask("POST", "/v1/connections/import", {"connections": [self.line(**tokens)], "hold": hold})
        [result] = told["results"]
        assert result["result"] == "imported", result
        return f"/v1/connections/{result['connection']}"

    async def set_up(self) -> None:
        """Tenants, integrations, keys, hook endpoints: each made, shown, listed, changed, and removed."""
        await self.ask("PUT", "/v1/tenants/acme", {"labels": {"plan": "x"}})
        once = {"idempotency-key": self.ascii("idempotency key")}
        for _ in range(2):  # the second answer is the stored one
            key = await self.ask("POST", "/v1/keys", {"name": "one of many"}, headers=once)
        self.canaries.add("API key", key["key"])
        for path in (f"/v1/keys/{key['id']}", "/v1/keys", "/v1/tenants", "/v1/tenants/acme", "/v1/integrations"):
            await self.ask("GET", path)
        await self.ask("PATCH", "/v1/integrations/other", {"unattributed": "drop"})
        for purpose in ("client_secrets", "signing_secrets"):
            for _ in range(2):
                new = {"purpose": purpose, "secret": self.ascii("rotated secret")}
                await self.ask("POST", "/v1/integrations/gitlab/secrets", new)
        await self.ask("DELETE", "/v1/integrations/gitlab/secrets?keep=1&purpose=client_secrets")
        await self.ask("GET", "/v1/integrations/gitlab")
        made = await self.ask("POST", "/v1/endpoints", {"integration": "gitlab", "generate_secret": True})
        self.canaries.add("made endpoint secret", made["secret"])
        path = f"/v1/endpoints/{made['id']}"
        more = await self.ask("POST", f"{path}/secrets", {}, headers={"idempotency-key": self.ascii("idempotency key")})
        self.canaries.add("made endpoint secret", more["secret"])
        await self.ask("POST", f"{path}/secrets", {"secret": self.ascii("endpoint secret")})
        await self.ask("DELETE", f"{path}/secrets?keep=2")
        await self.ask("PATCH", path, {"state": "live"})
        await self.ask("GET", path)
        await self.ask("GET", "/v1/endpoints")
        other = await self.ask("POST", "/v1/endpoints", {"integration": "gitlab", "generate_secret": True})
        self.canaries.add("made endpoint secret", other["secret"])
        await self.ask("DELETE", f"/v1/endpoints/{other['id']}")
        await self.ask("DELETE", f"/v1/keys/{key['id']}")
        await declare(self.town, "short-lived", provider="gitlab", settings={}, signing_secrets=[])
        await self.ask("DELETE", "/v1/integrations/short-lived")
        account = {"tenant": "acme", "integration": "gitlab", "accounts": ["project:15"]}
        await self.ask("POST", "/v1/connections", account)

    async def hooks(self, token: str) -> None:
        """Deliveries that are signed, or bring the secret itself; and forged ones that come near it."""
        url, now = f"{self.public}/hooks/gitlab", self.town.gateway.clock.now()
        self.town.provider.sandbox.write("user-1", "a message")
        await self.town.provider.sandbox.webhooks.settled()
        async with httpx.AsyncClient(trust_env=False) as http:
            self.town.ear.listen(http)
            body = gitlab_push()
            right = gitlab_token(body, token.encode(), now, delivery_id=self.unique, url=url)
            sneaky = {"cookie": self.ascii("hook cookie"), "authorization": f"Bearer {self.ascii('hook bearer')}"}
            for where, headers in (
                (url, right | sneaky),
                (f"{url}?token={self.ascii('hook query')}", right | {"idempotency-key": "another"}),
                (url, right | {"x-gitlab-token": token + "x"}),
                (url, right | {"x-gitlab-token": ""}),
                (f"{self.public}/hooks/sandbox", {"webhook-signature": token, "webhook-id": token}),
                (f"{self.public}/hooks/{self.ascii('no integration')}", right),
                (f"{url}/{self.ascii('no endpoint')}", right),
            ):
                await http.post(where, content=body, headers=headers)
            assert self.town.ear.answered["POST /hooks/{integration}"] >= {200, 401, 404}
        await self.ask("GET", "/v1/refusals")

    async def followed(self) -> None:
        """The stream, by page, as it comes, and by a consumer; and what is open to everybody."""
        after = "earliest"
        while True:
            page = await self.ask("GET", f"/v1/events?limit=200&after={after}")
            if after == page["next_cursor"] or not page["items"]:
                break
            after = page["next_cursor"]
        stream = self.town.api.http.stream("GET", "/v1/events/stream?after=earliest", headers=self.admin)
        async with stream as answer:
            text = b""
            async for part in answer.aiter_bytes():
                text += part
                if after.encode() in text:
                    break
        self.town.ear.note("the event stream", text)
        lease = (await self.ask("POST", "/v1/consumers/c/lease", {"worker": "w"}))["partitions"][0]
        done = {name: lease[name] for name in ("partition", "fence", "cursor")}
        await self.ask("POST", "/v1/consumers/c/commit", {"partitions": [done]})
        await self.ask("POST", "/v1/consumers/c/leave", {"worker": "w"})
        await self.ask("POST", "/v1/consumers/c/reset", {"to": "earliest"})
        for path in ("/v1/consumers", "/v1/consumers/c", "/healthz", "/readyz", "/metrics", "/openapi.json"):
            await self.ask("GET", path)
        await self.ask("DELETE", "/v1/consumers/c")

    async def operated(self) -> None:
        """What operators look after: a history, a delivery that was set aside, a provider that is unwell."""
        path, gateway = await self.connected(end_user_id="u-3"), self.town.gateway
        connection = ids.parse(ids.CONNECTION, path.rpartition("/")[2])
        assert connection is not None
        chat: dict[str, Any] = {
            "provider": "slack",
            "settings": {},
            "access_profiles": {},
            "client_secrets": [self.ascii("client secret")],
        }
        await declare(self.town, "chat", signing_secrets=[self.hex("signing secret")], **chat)
        aside = ids.show(ids.EVENT, await set_aside(gateway, "chat", "tokens_revoked", connection))
        await unwell(gateway, "gitlab")
        await incident(gateway, "chat")
        for page in (f"{path}/history", f"{path}/rotations", "/v1/set-aside", "/v1/providers", "/v1/incidents"):
            assert (await self.ask("GET", page))["items"]
        for page in (f"{path}/renewal", "/v1/renewals/plan"):
            await self.ask("GET", page)
        connections = f"connections/{path.rpartition('/')[2]}/renewal"
        for action in (
            f"set-aside/{aside}/redrive",
            "set-aside/redrive",
            "providers/gitlab/release",
            "incidents/chat/retry",
            connections,
        ):
            await self.ask("POST", f"/v1/{action}")

    @property
    def admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.town.api.admin}"}

    # --- what goes wrong

    async def wrong_consents(self) -> None:
        """Wrong codes and states, other browsers, replays, errors that the provider sends by way of the browser."""
        made, mine = await self.town.ask(), self.town.browser()
        back = await self.town.provider.consent(await self.town.press(made, mine))
        await self.town.browser().get(back)  # another browser
        await mine.get(back.replace("/sandbox?", "/other?"))  # a mix-up
        told = query_of(await mine.get(back))
        await mine.get(back)  # a replay
        wrong = {"code": self.ascii("wrong completion code")}
        path = f"/v1/connect/sessions/{made['id']}/complete"
        assert (await self.town.api("POST", path, wrong)).status_code in range(400, 500)
        await self.ask("POST", path, {"code": told["code"]})
        await mine.get(made["url"])  # used up
        await mine.get(f"{self.public}/connect/{self.ascii('no link')}")
        callback = f"{self.public}/oauth/callback/sandbox"
        await mine.get(f"{callback}?state={self.ascii('no state')}&code={self.ascii('no code')}")
        for said in (self.ascii("error text"), self.hex("error text")):
            made = await self.town.ask()
            state = query_of(await mine.press(await mine.get(made["url"])))["state"]
            sent = f"state={state}&iss={self.town.provider.base_url}&error={said}&error_description={said}"
            await mine.get(f"{callback}?{sent}")
        made = await self.town.ask()
        state = query_of(await mine.press(await mine.get(made["url"])))["state"]
        await mine.get(f"{callback}?state={state}&iss={self.town.provider.base_url}&code={self.ascii('wrong code')}")

    async def echoed(self) -> None:
        """The provider says our secrets back wherever it is asked: exchange, identity, refresh, report, revocation."""
        for how in ECHOES.values():
            for endpoint in ("authorization_code", "me"):
                self.town.provider.misbehave(endpoint, how)
                answer = await self.town.consent(await self.town.ask())
                assert answer.status_code == 502, answer.text
            path = await self.imported()
            self.town.provider.misbehave("refresh_token", how)
            assert (await self.town.api("GET", f"{path}/token")).status_code >= 400
            self.town.provider.behave()
            self.town.provider.misbehave("me", how)
            self.town.provider.misbehave("refresh_token", how)
            await self.ask("POST", f"{path}/signals", {"type": "token_rejected", "token_version": 1, "status": 401})
            self.town.provider.behave()
            self.town.provider.misbehave("revoke", how, None)
            await self.ask("DELETE", path)
            await self.town.gateway.closing_worker(self.town.gateway.regions.home).run_once()
            self.town.provider.behave()
        self.town.provider.misbehave("authorization_code", odd_tokens)
        await self.town.consent(await self.town.ask())
        self.town.provider.behave()

    async def ended(self) -> None:
        """A connection ends, and no revocation comes through: its tokens wait for one to the end of the story."""
        path = await self.imported()
        self.town.provider.misbehave("revoke", "server_error", None)
        await self.ask("DELETE", path)

    async def every_state(self) -> None:
        """A token is asked for in each state of its grant."""
        path = await self.connected(end_user_id="u-2")
        database, connection = self.town.gateway.regions.home.database, ids.parse(ids.CONNECTION, path.split("/")[-1])
        for state in ("pending", "suspended", "reauth_required", "revoked", "closed", "suspect", "active"):
            await database.execute("UPDATE gateway.grants SET state = $2 WHERE connection_id = $1", connection, state)
            answer = await self.town.api("GET", f"{path}/token")
            assert (answer.status_code == 200) == (state in ("suspect", "active")), answer.text
        path = await self.imported(expires_at="2100-01-01T00:00:00Z")
        flipped = """UPDATE gateway.tokens SET sealed_access = set_byte(sealed_access, 20, 255 - get_byte(sealed_access, 20))
                      WHERE connection_id = $1"""
        await database.execute(flipped, ids.parse(ids.CONNECTION, path.split("/")[-1]))
        assert (await self.town.api("GET", f"{path}/token")).status_code == 500

    def finish(self) -> None:
        """What only the others know now."""
        of_provider(self.canaries, self.town.provider)

    def unheard(self) -> list[str]:
        """Routes that were not seen to succeed."""
        heard = self.town.ear.answered
        return [f"{r.method} {r.path}" for r in ROUTES if not any(s < 300 for s in heard[f"{r.method} {r.path}"])]
