"""Microsoft Graph change notifications: an unsigned handshake, then arrays in which each element carries our secret.

Graph signs nothing. What proves an element is its `clientState`, the secret that the subscription was made with; a
batch may mix subscriptions, so each element is checked by itself and those that fail are dropped, as Graph's
documentation asks.

Rich notifications (`encryptedContent`) are held to `clientState` like any other and passed on as they are; their
`validationTokens` belong to the whole request, are not part of an item, and so are never stored.

Accounts are known by tenant and object id of an id token. It comes from the token endpoint itself, over TLS, which may
stand for its signature (OpenID Connect Core section 3.1.3.7, step 6); its issuer, audience, nonce and times are checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field

from providers import jwt, oauth, signatures
from providers.calls import Http, bearer, called
from providers.contract import Answer, Delivery, Facts, Handshake, Item, Sequence, Trust, Verified, event_name
from providers.errors import (
    HandshakeRefused,
    Malformed,
    NotConfigured,
    OddAnswer,
    SignatureMismatch,
    SignatureMissing,
)
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.reading import account, at, document, identifier, text
from providers.signals import Said, Signal, Tells
from providers.slicing import blank, elements

METHODS = frozenset({"POST"})

LIFECYCLE = "https://learn.microsoft.com/en-us/graph/change-notifications-lifecycle-events"

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
    # All about subscriptions; the first comes for a consent that was taken back, too, and the second may.
    signals=(
        Tells(event="lifecycle.reauthorizationrequired", says=("doubtful",), knows="nothing", source=LIFECYCLE),
        Tells(event="lifecycle.subscriptionremoved", says=("doubtful",), knows="nothing", source=LIFECYCLE),
        Tells(event="lifecycle.missed", says=(), knows="nothing", source=LIFECYCLE),
    ),
)

REASONS = {
    "lifecycle.reauthorizationrequired": "reauthorization_required",
    "lifecycle.subscriptionremoved": "subscription_removed",
}

TENANT = (
    r"common|organizations|consumers|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|" + rf"({oauth.LABEL}\.)+[a-z]{{2,63}}"
)

# MicrosoftDocs/entra-docs, docs/identity-platform/v2-oauth2-auth-code-flow.md, unless another page is named
OAUTH = OAuthFacts(
    authorize_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
    token_url="https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
    revoke_url=None,  # there is no RFC 7009 endpoint: users and admins take consents back, apps do not
    api_base="https://graph.microsoft.com",
    # By the operator's settings, else for a session (an app-only grant is of one tenant); never another host's.
    user_parts={"tenant": TENANT},
    default_parts={"tenant": "common"},
    client_auth="post",
    pkce=True,
    incremental=True,  # docs/identity-platform/consent-types-developer.md; consents add up, the token is for their union
    scopes_merge=True,
    grant_kinds=("code", "client_credentials"),  # docs/identity-platform/v2-oauth2-client-creds-grant-flow.md
    access_ttl_s=3600,  # 60 to 90 minutes; expires_in tells
    # docs/identity-platform/refresh-tokens.md: 90 days, a new one with each use, and the old one is not revoked by it
    refresh_idle_s=90 * 24 * 3600,
    rotation="grace",
    reuse_grace_s=90 * 24 * 3600,
    # docs/identity-platform/reference-error-codes.md: `error` is for code to react to; AADSTS numbers and texts change.
    # unauthorized_client: the app is not, or no longer, in that tenant.
    terminal=frozenset({"invalid_grant", "interaction_required", "consent_required", "unauthorized_client"}),
    configuration=frozenset(
        {"invalid_client", "invalid_request", "invalid_scope", "invalid_resource", "unsupported_grant_type"}
    ),
    transient=frozenset({"temporarily_unavailable", "server_error", "slow_down"}),
    revoke_reach="account",
    probe_acquits=False,  # Graph reads access tokens by their signature: they go on for an hour
)

GRAPH = "https://graph.microsoft.com/"
SIGN_IN = ("openid", "offline_access")  # an id token, and a refresh token

# "Validation: Testing client application reachability for subscription Request-Id: …" is what comes; it is opaque,
# so anything that prints, except what would start markup. A real one is about 120 characters.
TOKEN = re.compile(r"[ -%'-;=?-~]{1,1024}")  # printable ASCII without & < >
MAX_FIELDS = 100
# The secret is inside the body, so what anyone sends is parsed before it is verified, and small values weigh 30 times
# their bytes in memory. Real batches hold some thousand values; encrypted content, however long, is one.
MOST_COMMAS = 100_000
MOST_MEMBERS = 1_000  # of the body itself, which has two
CLIENT_STATE_MOST = 128  # characters, on creation of a subscription


class Settings(BaseModel):
    """Whose accounts may be connected."""

    model_config = ConfigDict(extra="forbid")

    tenant: str | None = Field(
        None,
        pattern=f"^({TENANT})$",
        max_length=253,
        description="A tenant's id or domain, or common, organizations, consumers; else as each session says, or common.",
    )


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


def interpret(said: Said) -> Sequence[Signal]:
    """No proof of anything: a token that is about to expire, a subscription that ran out, a consent that was taken back.

    It names the subscription and no account, so it is about whoever the item is of.
    """
    reason = REASONS.get(said.event)
    named = account("subscription", document(said.data).get("subscriptionId"))
    return [Signal(says="doubtful", reason=reason)] if reason and named else []


def redact(data: bytes) -> bytes:
    """Blank `clientState`: whoever reads events must not be able to send them."""
    return blank(data, "clientState")


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a clientState."""
    if len(secret) > CLIENT_STATE_MOST:
        return f"is longer than the {CLIENT_STATE_MOST} characters that a subscription takes"
    return signatures.text_secret_complaint(secret)


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """With `openid` and `offline_access`, whoever forgets them; the nonce binds the id token to this consent."""
    scopes = {name: tuple(dict.fromkeys((*of, *SIGN_IN))) for name, of in asked.scopes.items()}
    sent = oauth.authorize_parameters(OAUTH, app, replace(asked, scopes=scopes or {"": SIGN_IN}))
    more = {"nonce": asked.nonce, "login_hint": asked.login_hint, "prompt": "select_account" if asked.again else None}
    return sent | {name: value for name, value in more.items() if value is not None}


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """Granted scopes in the spelling that was asked for: Graph's own come back with or without its name, in any case.

    `offline_access` is never named: a refresh token says that it was granted.
    """
    found = oauth.token_set(OAUTH, answer)
    if found.scopes is None:
        return dict.fromkeys(asked.scopes, found)
    told = {_plain(one) for one in found.scopes} | ({"offline_access"} if found.refresh_token else set())
    named = {one for of in asked.scopes.values() for one in of}
    scopes = {one for one in named if _plain(one) in told}
    scopes |= {one for one in found.scopes if _plain(one) not in {_plain(asked_for) for asked_for in named}}
    return dict.fromkeys(asked.scopes, replace(found, scopes=frozenset(scopes)))


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """`tid` and `oid`: `sub` differs from app to app, names and addresses change hands.

    MicrosoftDocs/entra-docs, docs/identity-platform/id-token-claims-reference.md
    """
    token = next(iter(tokens.values())).id_token
    if token is None:
        raise OddAnswer("no_id_token")
    try:
        claims = jwt.claims_of(token)
    except SignatureMismatch:
        raise OddAnswer("odd_id_token") from None
    user = account("user", claims.get("tid"), claims.get("oid"))
    if not user:
        raise OddAnswer("no_subject")
    jwt.check_id_token(claims, app, {f"https://login.microsoftonline.com/{claims['tid']}/v2.0"})
    return Identity(subject=user[0], accounts=user, reach=user[0])


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """Graph's userinfo wants `openid` only. A token for another API shows nothing there, least of all that it is over.

    MicrosoftDocs/entra-docs, docs/identity-platform/userinfo.md
    """
    if any("://" in scope and not scope.startswith(GRAPH) for scope in tokens.scopes or ()):
        raise OddAnswer("not_graphs_token")
    await called(http, bearer("GET", f"{OAUTH.api_base}/oidc/userinfo", tokens.access_token))
    return None


def _plain(scope: str) -> str:
    return scope.removeprefix(GRAPH).lower()


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
    name = event_name(f"lifecycle.{lifecycle}" if lifecycle else f"{_kind(said)}.{text(said.get('changeType'))}")
    return Item(
        event=name,
        data=data,
        # All people of one organisation, and all private Microsoft accounts, share a tenant: only a connection that
        # stands for the whole of it may go by that key.
        accounts=account("subscription", said.get("subscriptionId")) + account("tenant", said.get("tenantId")),
        dedupe=None if lifecycle else _dedupe(said),
        signal=bool(lifecycle) and FACTS.is_signal(name),  # a resource may be called anything, `lifecycle` too
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
