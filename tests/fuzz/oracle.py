"""Who is to be believed, decided without our verifiers: nobody but those who hold what was truly signed.

`claims` are the signed parts of a request together with its authenticator, read generously (of several signatures in
one header each is a claim). A request is genuine if one of its claims is in the ledger of what the signers made with
the right secret at the right time. Anything else that is acknowledged was forged.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests import signers_d
from tests.fuzz.wire import Header, Message
from tests.signers import SIGNERS

Claim = tuple[bytes, ...]
_LISTED = ":/?@!$'()*,;"  # what HubSpot decodes of a URL before it signs


class Oracle:
    """What was truly signed, and the judgement by it."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url.encode()
        self._ledger: dict[str, set[Claim]] = defaultdict(set)

    def signed(self, name: str, message: Message) -> None:
        """Signer `name` made this, with a secret that we know, now."""
        made = self._claims(name, message, message.headers)
        if SIGNERS[name].provider == "microsoft":  # the body may say anything; only our secret is a proof
            made = {(SIGNERS[name].secrets[0],)}
        assert made, f"a request of {name} without its own claim"
        self._ledger[_keys(name)] |= made

    def genuine(self, name: str, message: Message) -> bool:
        """Whether that signer can be believed to have sent it. Headers behind the body may count or not."""
        heads = (message.headers, message.headers[: message.at_head])
        return message.method == "POST" and any(
            self._claims(name, message, h) & self._ledger[_keys(name)] for h in heads
        )

    def _claims(self, name: str, message: Message, headers: Sequence[Header]) -> set[Claim]:
        once = _once(headers)
        body = hashlib.sha256(message.body).digest()
        if name == "hubspot":
            query = b"?" + message.query if message.query else b""
            url = _decoded(self._public_url + message.path + query)
            return _all(
                once, "x-hubspot-request-timestamp", "x-hubspot-signature-v3", more=(message.method.encode(), url, body)
            )
        if name in signers_d.SIGNERS:
            return {(body,)}
        return _BY_NAME[SIGNERS[name].provider if name != "gitlab/token" and name != "google/channel" else name](
            once, headers, body, message.body
        )


def _keys(name: str) -> str:
    """Whose ledger counts: some hold one secret and sign alike, so nobody can tell one's delivery from the other's."""
    return {"gitlab": "standard-webhooks", "shopify/events": "shopify"}.get(name, name)


def elements(body: bytes) -> list[Any]:
    """The elements of Graph's `value`; none where it is no such body."""
    try:
        value = json.loads(body.decode("utf-8")).get("value")
    except (ValueError, AttributeError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _once(headers: Sequence[Header]) -> Mapping[str, bytes]:
    """Headers that came once; a doubled one is nobody's word."""
    values: dict[str, list[bytes]] = defaultdict(list)
    for name, value in headers:
        values[name.decode("latin-1")].append(value)
    return {name: found[0] for name, found in values.items() if len(found) == 1}


def _all(once: Mapping[str, bytes], *names: str, more: Claim = ()) -> set[Claim]:
    """One claim of all these headers, if all are there."""
    return {(*(once[name] for name in names), *more)} if all(name in once for name in names) else set()


def _github(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return _all(once, "x-hub-signature-256", more=(digest,))


def _slack(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return _all(once, "x-slack-request-timestamp", "x-slack-signature", more=(digest,))


def _shopify(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    families = ("x-shopify-hmac-sha256", "shopify-hmac-sha256")
    return {(once[name], digest) for name in families if name in once}


def _zoom(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return _all(once, "x-zm-request-timestamp", "x-zm-signature", more=(digest,))


def _linear(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return _all(once, "linear-signature", more=(digest,))


def _stripe(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    parts = [part.split(b"=", 1) for part in once.get("stripe-signature", b"").split(b",") if b"=" in part]
    times = [value for scheme, value in parts if scheme == b"t"]
    return {(times[0], value, digest) for scheme, value in parts if scheme == b"v1"} if len(times) == 1 else set()


def _standard(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return {
        (once[f"{prefix}-id"], once[f"{prefix}-timestamp"], signature, digest)
        for prefix in ("webhook", "svix")
        if {f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature"} <= once.keys()
        for signature in once[f"{prefix}-signature"].split(b" ")
    }


def _gitlab_token(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    signed = any(name == b"webhook-signature" for name, _ in headers)  # then that counts, and nothing else
    return set() if signed else _all(once, "x-gitlab-token")


def _google(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    channel = any(name.startswith(b"x-goog-channel-") for name, _ in headers)  # of the other scheme, at another URL
    return set() if channel else _all(once, "authorization")


def _channel(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    return _all(once, "x-goog-channel-token") if once.get("x-goog-channel-id") else set()


def _microsoft(once: Mapping[str, bytes], headers: Sequence[Header], digest: bytes, body: bytes) -> set[Claim]:
    states = [element.get("clientState") for element in elements(body) if isinstance(element, dict)]
    return {(state.encode("utf-8", "surrogatepass"),) for state in states if isinstance(state, str)}


_BY_NAME: dict[str, Callable[[Mapping[str, bytes], Sequence[Header], bytes, bytes], set[Claim]]] = {
    "github": _github, "slack": _slack, "stripe": _stripe, "standard-webhooks": _standard, "gitlab": _standard,
    "sandbox": _standard, "generic-oauth2": _standard, "shopify": _shopify, "zoom": _zoom, "linear": _linear,
    "gitlab/token": _gitlab_token, "google": _google, "google/channel": _channel, "microsoft": _microsoft,
}  # fmt: skip


def _decoded(url: bytes) -> bytes:
    for character in _LISTED:
        for escape in (f"%{ord(character):02X}", f"%{ord(character):02x}"):
            url = url.replace(escape.encode(), character.encode())
    return url
