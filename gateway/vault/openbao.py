"""HashiCorp Vault or OpenBao: our own token there, kept alive, and calls made with it.

The token comes from an AppRole login, or is a static one. It is renewed in the last third of its life; where that is
refused (a maximum life, a batch token, a restart that lost it) we log in again. A 403 asks whether the token is still
one before it counts as the policy's no. Tokens and secret ids stand in no error, log or repr.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import structlog

from gateway import metrics
from gateway.clock import Clock
from gateway.errors import SetupError, Unavailable
from gateway.settings import Settings
from gateway.vault.transport import SEALED_RETRY_S, Answer, Server, Unreached, send, unusable

log = structlog.get_logger(__name__)

RENEW_EVERY_S = 5.0  # how often `run_once` looks
RENEW_AT = 1 / 3  # renew when this share of the token's life is left
LOGIN_AGAIN_S = 5.0  # after a login that was refused
CLOSE_S = 1.0
FOREVER = float("inf")

Kind = Literal[
    "login", "renew", "lookup", "health", "key", "encrypt", "decrypt", "rotate", "read", "write", "list", "delete"
]
Condition = Literal["active", "standby", "sealed", "uninitialized", "away"]
# https://openbao.org/api-docs/system/health/ : what each status says
CONDITIONS: Mapping[int, Condition] = {
    200: "active", 429: "standby", 472: "standby", 473: "standby", 501: "uninitialized", 503: "sealed",
}  # fmt: skip


class Refused(Exception):
    """Vault answered, and says no. Its own words are not repeated."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(f"Vault refuses {what} ({_because(status)})")
        self.status = status


@dataclass(slots=True)
class Lease:
    """Our own token. Times are `Clock.monotonic`."""

    token: str = field(repr=False)
    life_s: float  # as it was given
    until: float
    renewable: bool


class OpenBao:
    """One server (or cluster behind one address), and our login to it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises: SetupError: the settings do not say whom to call, or as whom."""
        if settings.vault_addr is None:
            raise SetupError("POSTHOUSE_VAULT_ADDR is not set")
        if (settings.vault_token is None) == (settings.vault_role_id is None):
            raise SetupError(
                "set POSTHOUSE_VAULT_ROLE_ID (with POSTHOUSE_VAULT_SECRET_ID), or else POSTHOUSE_VAULT_TOKEN: one of the two"
            )
        self._settings, self._clock, self._server = settings, clock, Server.of(settings)
        self._namespace = {} if settings.vault_namespace is None else {"X-Vault-Namespace": settings.vault_namespace}
        self.host = urlsplit(settings.vault_addr).netloc
        self._lease: Lease | None = None
        self._entering = asyncio.Lock()
        self._refused_at = -FOREVER

    def __repr__(self) -> str:
        return f"OpenBao({self.host})"

    async def open(self) -> None:
        """Get our token.    Raises: SetupError: refused, or no server we trust; Unavailable: away, worth another try."""
        try:
            await self._enter()
        except Unreached as error:
            if not error.passing:
                raise SetupError(f"{error} (POSTHOUSE_VAULT_ADDR)") from None
            raise
        except Refused as error:
            raise SetupError(str(error)) from None

    async def enter(self) -> None:
        """`open`, for a process that can begin without: while the server is away it goes on, and tries again later.

        Raises: SetupError: refused, or no server we trust.
        """
        try:
            await self.open()
        except Unavailable as error:
            log.warning("vault.away", why=error)

    async def close(self) -> None:
        """Hand an AppRole token back, if that is quick, and disconnect."""
        lease, self._lease = self._lease, None
        if lease is not None and self._settings.vault_role_id is not None:
            try:
                await asyncio.wait_for(
                    self._send("login", "POST", "auth/token/revoke-self", None, lease.token), CLOSE_S
                )
            except (TimeoutError, Unavailable):
                pass  # it ends by itself
        await self._server.close()

    async def call(
        self, kind: Kind, method: str, path: str, body: Mapping[str, Any] | None = None, *, takes: Collection[int] = ()
    ) -> Answer:
        """One call with our token; statuses in `takes` are answers too.

        Raises: Unavailable: sealed, a standby, away, or our login is refused; Refused: the answer is no.
        """
        token = await self._token()
        answer = await self._send(kind, method, path, body, token)
        if answer.status == 403 and await self._ended(token):
            answer = await self._send(kind, method, path, body, await self._token())
        if answer.status < 300 or answer.status in takes:
            return answer
        raise Refused(f"{kind} at {path}", answer.status)

    async def condition(self) -> Condition:
        """How the server is, asked without our token. Never raises."""
        try:
            # Outside our namespace: it is the whole server's.
            answer = await self._sent("health", "GET", "sys/health", {}, None)
        except Unavailable:
            return "away"
        return CONDITIONS.get(answer.status, "away")

    @property
    def seconds_left(self) -> float | None:
        """Of our token; inf: it does not end; None: we have none."""
        return None if self._lease is None else self._lease.until - self._clock.monotonic()

    @property
    def renewable(self) -> bool:
        return self._lease is not None and self._lease.renewable

    async def run_once(self) -> None:
        """Say how the server is, and renew our token when its time has come.    Raises: Unavailable, Refused."""
        condition = await self.condition()
        metrics.VAULT_UP.labels(self.host).set(condition in ("active", "standby"))
        try:
            if condition in ("active", "standby"):
                await self._stay()
        finally:
            left = self.seconds_left
            metrics.VAULT_TOKEN_SECONDS.labels(self.host).set(0 if left is None else max(left, 0))

    async def renew(self) -> None:
        """Renew our token now; where that is refused, or brings no time, log in again.    Raises: Unavailable, Refused."""
        lease = self._lease
        if lease is None or (not lease.renewable and self._settings.vault_role_id is not None):
            return await self._enter()
        if lease.life_s == FOREVER:
            return None
        began = self._clock.monotonic()
        answer = await self._send(
            "renew", "POST", "auth/token/renew-self", {"increment": f"{int(lease.life_s)}s"}, lease.token
        )
        if answer.status < 300:
            renewed = _lease(answer, began, lease.token)
            if self._settings.vault_role_id is None or renewed.until - began > lease.life_s * RENEW_AT:
                self._lease = Lease(lease.token, lease.life_s, renewed.until, renewed.renewable)
                return None
        elif self._settings.vault_role_id is None:
            raise Refused("renew of POSTHOUSE_VAULT_TOKEN", answer.status)
        log.info("vault.login_again", status=answer.status)  # its maximum life is near, or it is gone
        return await self._enter()

    async def _stay(self) -> None:
        lease, left = self._lease, self.seconds_left
        if lease is None or left is None or left <= 0:
            await self._enter()
        elif left < lease.life_s * RENEW_AT and (lease.renewable or self._settings.vault_role_id is not None):
            await self.renew()

    async def _token(self) -> str:
        lease = self._lease
        if lease is None or lease.until <= self._clock.monotonic():
            try:
                await self._enter(lease)
            except Refused as error:
                raise Unreached(str(error), retry_after_s=SEALED_RETRY_S) from None
            lease = self._lease
            assert lease is not None
        return lease.token

    async def _ended(self, token: str) -> bool:
        """Was a 403 about our token (then there is another now), or is it the policy's answer?"""
        if self._settings.vault_role_id is None:
            return False
        lease = self._lease
        if lease is not None and lease.token == token:
            if (await self._send("lookup", "GET", "auth/token/lookup-self", None, token)).status < 300:
                return False
            if self._lease is lease:
                self._lease = None
        return True

    async def _enter(self, instead_of: Lease | None = None) -> None:
        """Log in, once however many ask; a static token is looked up.    Raises: Unavailable, Refused."""
        before = instead_of or self._lease
        async with self._entering:
            if self._lease is not None and self._lease is not before:
                return  # somebody else did
            if self._clock.monotonic() - self._refused_at < LOGIN_AGAIN_S:
                raise Unreached("Vault refused our login a moment ago", retry_after_s=SEALED_RETRY_S)
            began = self._clock.monotonic()
            static, settings = self._settings.vault_token, self._settings
            if static is not None:
                token = static.get_secret_value()
                answer = await self._send("lookup", "GET", "auth/token/lookup-self", None, token)
            else:
                body = {"role_id": settings.vault_role_id}
                if settings.vault_secret_id is not None:
                    body["secret_id"] = settings.vault_secret_id.get_secret_value()
                answer = await self._send("login", "POST", f"auth/{settings.vault_approle_mount}/login", body, None)
            if answer.status >= 300:
                self._refused_at = began
                who = "POSTHOUSE_VAULT_TOKEN" if static is not None else "our AppRole login"
                raise Refused(who, answer.status)
            self._lease = _lease(answer, began, "" if static is None else token)

    async def _send(
        self, kind: Kind, method: str, path: str, body: Mapping[str, Any] | None, token: str | None
    ) -> Answer:
        """One request in our namespace, counted.    Raises: Unavailable: whatever is not an answer to the question."""
        headers = self._namespace if token is None else {**self._namespace, "X-Vault-Token": token}
        answer = await self._sent(kind, method, path, headers, body)
        if (away := unusable(answer)) is not None:
            self._count(kind, "unavailable")
            raise away
        self._count(kind, "ok" if answer.status < 300 else "refused")
        return answer

    async def _sent(
        self, kind: Kind, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> Answer:
        try:
            return await send(self._server, method, path, headers, body)
        except Unreached:
            self._count(kind, "unavailable")
            raise

    def _count(self, kind: Kind, outcome: str) -> None:
        metrics.VAULT_CALLS.labels(kind, outcome).inc()


@asynccontextmanager
async def connected(settings: Settings, clock: Clock) -> AsyncIterator[OpenBao]:
    """A client that is logged in, for one command.    Raises: SetupError, Unavailable."""
    bao = OpenBao(settings, clock)
    try:
        await bao.open()
        yield bao
    finally:
        await bao.close()


def _lease(answer: Answer, began: float, token: str) -> Lease:
    """Our token as a login, a renewal (`auth`) or a look-up (`data`, with `token` known) tells it."""
    auth, data = answer.body.get("auth"), answer.body.get("data")
    told = auth if isinstance(auth, dict) else data if isinstance(data, dict) else {}
    token = token or str(told.get("client_token") or "")
    life = told.get("lease_duration", told.get("ttl"))
    if not token or type(life) is not int:
        raise Unreached("Vault's answer about our token cannot be read")
    life_s = float(life) if life > 0 else FOREVER
    return Lease(token, life_s, began + life_s, told.get("renewable") is True)


def _because(status: int) -> str:
    return {400: "not valid", 403: "permission denied", 404: "no such path", 413: "too large"}.get(
        status, f"status {status}"
    )


__all__ = ["Answer", "OpenBao", "Refused", "connected"]
