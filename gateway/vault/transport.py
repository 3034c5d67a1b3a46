"""One request to Vault / OpenBao: TLS always verified, no redirect followed, no proxy of the environment, answers bounded.

`send` is the only place that opens a socket; what it raises says whether waiting may help.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gateway.errors import SetupError, Unavailable
from gateway.settings import Settings

CONNECT_S = 2.0
MAX_BYTES = 16 * 1024 * 1024  # a list of 200,000 blobs
AWAY_RETRY_S, SEALED_RETRY_S, MOST_RETRY_S = 2, 10, 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Bodies hold secrets, so no repr shows one."""

    status: int
    body: dict[str, Any] = field(repr=False)
    retry_after_s: int | None = None


class Unreached(Unavailable):
    """Vault / OpenBao gave no usable answer. Not `passing`: somebody must change something, waiting does not help."""

    def __init__(self, detail: str, *, passing: bool = True, retry_after_s: int = AWAY_RETRY_S) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.passing = passing


@dataclass(slots=True)
class Server:
    """Where it is, and how it is told from an impostor."""

    url: str
    timeout_s: float
    tls: ssl.SSLContext | None = field(repr=False)
    server_name: str | None = None
    session: aiohttp.ClientSession | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Server:
        """Raises: SetupError: a certificate file cannot be used."""
        assert settings.vault_addr is not None
        secure = settings.vault_addr.startswith("https://")
        return cls(
            settings.vault_addr,
            settings.vault_timeout_s,
            _tls(settings) if secure else None,
            settings.vault_server_name,
        )

    async def close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            await session.close()


def unusable(answer: Answer) -> Unreached | None:
    """What an answer is that answers nothing: the server is sealed, a standby, at its limits, or failing."""
    status, said = answer.status, answer.body.get("errors")
    if status == 503 and isinstance(said, list) and any("sealed" in str(one) for one in said):
        return Unreached("Vault is sealed", retry_after_s=SEALED_RETRY_S)
    if status == 429:
        return Unreached("Vault limits our rate", retry_after_s=answer.retry_after_s or AWAY_RETRY_S)
    if 300 <= status < 400 or status in (472, 473):
        return Unreached("Vault is a standby that points elsewhere: name the active one, or a balancer")
    if status >= 500:
        return Unreached("Vault fails", retry_after_s=answer.retry_after_s or AWAY_RETRY_S)
    return None


async def send(
    server: Server, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> Answer:
    """`method` on `/v1/{path}`.    Raises: Unreached.

    Sent twice where a kept connection turns out to be closed: nothing we ask does harm when it is done twice.
    """
    try:
        return await _send(server, method, path, headers, body)
    except aiohttp.ServerDisconnectedError:
        pass
    try:
        return await _send(server, method, path, headers, body)
    except aiohttp.ServerDisconnectedError:
        raise Unreached("Vault cannot be reached") from None


async def _send(
    server: Server, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
) -> Answer:
    if server.session is None:
        server.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=server.timeout_s, sock_connect=min(CONNECT_S, server.timeout_s)),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
    try:
        async with server.session.request(
            method,
            f"{server.url}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={**headers, "X-Vault-Request": "true"},  # what its agent's proxy asks for, against forged requests
            allow_redirects=False,
            ssl=server.tls if server.tls is not None else True,
            server_hostname=server.server_name if server.tls is not None else None,
        ) as answer:
            raw = await _bounded(answer)
            return Answer(answer.status, _object(raw, answer.status), _retry_after(answer.headers))
    except aiohttp.ClientConnectorCertificateError as error:
        why = getattr(error.certificate_error, "verify_message", "") or "it is for another name"
        raise Unreached(f"Vault shows a certificate that does not pass: {why}", passing=False) from None
    except (aiohttp.ClientSSLError, ssl.SSLError):
        raise Unreached("Vault does not agree with us on TLS (look at the certificates)", passing=False) from None
    except aiohttp.ServerDisconnectedError:
        raise
    except TimeoutError:
        raise Unreached("Vault does not answer in time") from None
    except (aiohttp.ClientError, OSError, ValueError):  # from None: what they say may quote a header
        raise Unreached("Vault cannot be reached") from None


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for piece in answer.content.iter_any():
        raw += piece
        if len(raw) > MAX_BYTES:
            raise Unreached("Vault's answer is too long")
    return bytes(raw)


def _object(raw: bytes, status: int) -> dict[str, Any]:
    if not raw:
        return {}
    try:
        whole = json.loads(raw)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict):
        return whole
    if status < 500:  # a captive page, a balancer's greeting, https behind http: not the server that we know
        raise Unreached("something that is not Vault answers at its address (https or http?)", passing=False)
    return {}


def _retry_after(headers: Mapping[str, str]) -> int | None:
    told = headers.get("Retry-After", "").strip()
    return min(int(told[:6]), MOST_RETRY_S) if told.isascii() and told.isdigit() else None


def _tls(settings: Settings) -> ssl.SSLContext:
    ca, cert, key = settings.vault_ca_file, settings.vault_client_cert_file, settings.vault_client_key_file
    if key is not None and cert is None:
        raise SetupError("POSTHOUSE_VAULT_CLIENT_KEY_FILE needs POSTHOUSE_VAULT_CLIENT_CERT_FILE beside it")
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError):
        raise SetupError(f"POSTHOUSE_VAULT_CA_FILE names {ca}, which holds no certificate that can be read") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            # An empty password: OpenSSL would ask for the key's on the terminal.
            context.load_cert_chain(cert, key, password=b"")
        except (OSError, ssl.SSLError):
            raise SetupError(
                f"POSTHOUSE_VAULT_CLIENT_CERT_FILE names {cert}, which cannot be used (or its key cannot)"
            ) from None
    return context
