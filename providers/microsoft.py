"""Microsoft Graph change notifications: an unsigned handshake, then arrays in which each element carries our secret.

Graph signs nothing. What proves an element is its `clientState`, the secret that the subscription was made with; a
batch may mix subscriptions, so each element is checked by itself and those that fail are dropped, as Graph's
documentation asks.

Rich notifications (`encryptedContent`) are held to `clientState` like any other and passed on as they are; their
`validationTokens` belong to the whole request, are not part of an item, and so are never stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from providers import signatures
from providers.contract import Answer, Delivery, Facts, Handshake, Item, Sequence, Trust, Verified, event_name
from providers.errors import HandshakeRefused, Malformed, NotConfigured, SignatureMismatch, SignatureMissing
from providers.reading import account, at, document, identifier, text
from providers.slicing import blank, elements

METHODS = frozenset({"POST"})

FACTS = Facts(
    name="microsoft",
    title="Microsoft Graph",
    docs_url="https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks",
    # Each hook endpoint has a clientState of its own, and that one wins; an integration's signing secrets serve
    # subscriptions that were made elsewhere, with one clientState for all.
    signs_with="endpoint",
    ack_status=202,
    ack_deadline_s=3.0,  # beyond it counts as slow, and slow hosts are first delayed, then dropped
    handshake=Handshake(methods=METHODS, where="confirming"),
    # https://learn.microsoft.com/en-us/graph/change-notifications-lifecycle-events
    signals=("lifecycle.",),
)

# "Validation: Testing client application reachability for subscription Request-Id: …" is what comes; it is opaque,
# so anything that prints, except what would start markup. A real one is about 120 characters.
TOKEN = re.compile(r"[ -%'-;=?-~]{1,1024}")  # printable ASCII without & < >
MAX_FIELDS = 100
# The secret is inside the body, so what anyone sends is parsed before it is verified, and small values weigh 30 times
# their bytes in memory. Real batches hold some thousand values; encrypted content, however long, is one.
MOST_COMMAS = 100_000
MOST_MEMBERS = 1_000  # of the body itself, which has two
CLIENT_STATE_MOST = 128  # characters, on creation of a subscription


def handshake(delivery: Delivery, trust: Trust) -> Answer | None:
    """Echo `?validationToken=…`, form-decoded; None where there is none.    Raises: HandshakeRefused.

    Anyone can ask, so the answer must not be usable as a page of ours: plain text here; the gateway adds `nosniff`
    and a sandbox to whatever a handshake answers.
    """
    try:
        fields = parse_qsl(delivery.query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise HandshakeRefused("too many fields") from None
    tokens = [value for name, value in fields if name == "validationToken"]
    if not tokens:
        return None
    if delivery.method not in METHODS or not trust.endpoint:
        raise HandshakeRefused("by POST, at a hook endpoint")
    if len(tokens) > 1 or not TOKEN.fullmatch(tokens[0]):
        raise HandshakeRefused("not a validation token")
    return Answer(200, tokens[0].encode(), content_type="text/plain")


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless at least one element carries our clientState; `only` has those that do."""
    if not any(trust.secrets):
        raise NotConfigured("no secret")
    states = [_client_state(data) for data in _elements(delivery.body)]
    if not any(states):
        raise SignatureMissing("clientState")
    found = {index: secret for index, state in enumerate(states) if (secret := _which(state, trust)) is not None}
    if not found:
        raise SignatureMismatch("clientState")
    return Verified(
        scheme="client_state",
        secret=max(found.values()),  # the oldest in use: it may not go yet
        only=None if len(found) == len(states) else frozenset(found),
    )


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """An item for each verified element of `value`."""
    only = verified.only
    return [_item(data) for index, data in enumerate(_elements(delivery.body)) if only is None or index in only]


def redact(data: bytes) -> bytes:
    """Blank `clientState`: whoever reads events must not be able to send them."""
    return blank(data, "clientState")


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a clientState."""
    if len(secret) > CLIENT_STATE_MOST:
        return f"is longer than the {CLIENT_STATE_MOST} characters that a subscription takes"
    return signatures.text_secret_complaint(secret)


def _elements(body: bytes) -> list[bytes]:
    if body.count(b",") > MOST_COMMAS:
        raise Malformed("more values than Graph sends")
    found = elements(body, ("value",), most_members=MOST_MEMBERS)
    if not found:
        raise Malformed("value is empty")
    return found


def _client_state(data: bytes) -> bytes:
    # surrogatepass: a lone surrogate becomes bytes that no UTF-8 secret has, and no error
    return text(document(data).get("clientState")).encode("utf-8", "surrogatepass")


def _which(state: bytes, trust: Trust) -> int | None:
    try:
        return signatures.matching(trust.secrets, lambda secret: secret, [state])
    except SignatureMismatch:
        return None


def _item(data: bytes) -> Item:
    said = document(data)
    lifecycle = text(said.get("lifecycleEvent"))
    return Item(
        event=event_name(f"lifecycle.{lifecycle}" if lifecycle else f"{_kind(said)}.{text(said.get('changeType'))}"),
        data=data,
        # All people of one organisation, and all private Microsoft accounts, share a tenant: only a connection that
        # stands for the whole of it may go by that key.
        accounts=account("subscription", said.get("subscriptionId")) + account("tenant", said.get("tenantId")),
        dedupe=None if lifecycle else _dedupe(said),
        signal=bool(lifecycle),
    )


def _dedupe(said: Mapping[str, Any]) -> str | None:
    """Key of a change notification that has an `id` ("unique ID for the notification", optional); else None.

    Without an id, two changes of one resource look exactly alike, and so do two `missed`: a repeated item is a
    nuisance, a swallowed one is a loss. So lifecycle events, which have no documented id, are never deduplicated;
    and kind of change and etag are in the key, should an id ever be less unique than it says.
    """
    subscription, name = identifier(said.get("subscriptionId")), identifier(said.get("id"), 512)
    if not subscription or not name:
        return None
    etag = text(at(said, "resourceData", "@odata.etag"))
    return "/".join((subscription, name, text(said.get("changeType")), etag))


def _kind(said: Mapping[str, Any]) -> str:
    """What changed: `message` of "#Microsoft.Graph.Message", else the last plain word of the resource's path.

    A path names collections (`users/…/messages/…`), a type the thing itself; a guess stays a guess."""
    named = text(at(said, "resourceData", "@odata.type")).rpartition(".")[2]
    if named:
        return named
    for step in reversed(text(said.get("resource")).split("/")):
        word = step.partition("(")[0]
        if word.isascii() and word.isalpha():
            return word
    return "resource"
