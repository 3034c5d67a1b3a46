"""Shopify: webhooks of an app in both header families, and offline access tokens that expire and are refreshed.

The HMAC of a webhook covers its body and nothing else: no time, and none of the headers that name the topic and the
shop. Where a body names its shop, that name counts; and what a body says of a grant is checked before anything moves,
for `shop/update` and `app/uninstalled` differ in an unsigned header alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from providers import graphql, oauth, oauth_calls
from providers.calls import Http
from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import (
    GrantEnded,
    Malformed,
    OddAnswer,
    SignatureMismatch,
    SignatureMissing,
    Suspended,
    WrongSender,
)
from providers.oauth import LABEL, App, Asked, Identity, OAuthFacts, TokenSet
from providers.reading import at, document, identifier, iso_instant, text
from providers.signals import Said, Signal, Tells
from providers.signatures import (
    equal,
    header,
    hmac_base64,
    hmac_hex,
    matching,
    raw,
    signed_time,
    text_secret_complaint,
    within,
)

# Shopify/shopify-app-js, packages/apps/shopify-api/lib/types.ts: ShopifyHeader, and ShopifyEventsHeader without "x-"
FAMILIES = ("x-shopify", "shopify")
NAMED = ("topic", "shop-domain", "webhook-id", "event-id", "triggered-at")
ALSO = ("api-version", "sub-topic", "name", "handle", "action", "resource-id")

FACTS = Facts(
    name="shopify",
    title="Shopify",
    docs_url="https://shopify.dev/docs/apps/build/webhooks",
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https#step-2-validate-the-origin-of-your-webhook
    signature_headers=tuple(f"{family}-hmac-sha256" for family in FAMILIES),
    identity_headers=tuple(f"{family}-{name}" for family in FAMILIES for name in NAMED),
    kept_headers=tuple(f"{family}-{name}" for family in FAMILIES for name in ALSO),
    signs_with="client_secrets",
    # https://shopify.dev/changelog, 2024-09-10: 8 retries over 4 hours; five seconds for the whole of it: not verified
    ack_deadline_s=5.0,
    # No time is signed, so a replay looks the same.
    signals=(
        Tells(
            event="app.uninstalled",
            says=("revoked",),
            knows="nothing",
            source="https://shopify.dev/docs/api/webhooks/latest#app/uninstalled",
        ),
        Tells(
            event="app.scopes_update",
            says=("scopes_changed",),
            knows="nothing",
            source="https://shopify.dev/changelog/new-webhook-topic-app-scopes_update",
        ),
    ),
)

# https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/authorization-code-grant
# https://shopify.dev/docs/apps/build/authentication-authorization/access-tokens/offline-access-tokens
OAUTH = OAuthFacts(
    authorize_url="https://{shop}.myshopify.com/admin/oauth/authorize",
    token_url="https://{shop}.myshopify.com/admin/oauth/access_token",
    # A version that has run out is answered by the oldest that has not: https://shopify.dev/docs/api/usage/versioning
    api_base="https://{shop}.myshopify.com/admin/api/2026-10",
    user_parts={"shop": LABEL},
    client_auth="post",
    token_encoding="json",
    pkce=False,
    scope_separator=",",
    scopes_merge=True,  # one installation per shop: it has what the last consent asked for (not verified)
    token_extra={"expiring": "1"},  # else the token lives for ever, which public apps may not have from 2027-01-01
    access_ttl_s=None,  # expires_in, 3600, and a refresh token with it; neither where the app's tokens do not expire
    refresh_idle_s=90 * 24 * 3600,
    # https://shopify.dev/changelog/more-resilient-refreshes-for-expiring-offline-access-tokens: the old refresh token can
    # be sent again until its successor is used, for 30 days at the most.
    rotation="grace",
    reuse_grace_s=30 * 24 * 3600,
    # Shopify/shopify-app-js, lib/auth/oauth/__tests__/refresh-token.test.ts: invalid_grant. A code that is used up is
    # answered invalid_request, as faults of ours are. Some errors come as a page of HTML, and say nothing to us.
    configuration=frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
        | {"application_cannot_be_found", "shop_not_permitted"}
    ),
    # Uninstalling ends every token of the shop at once; there is nothing that ends one.
    revoke_reach="installation",
    # "Stays valid until the store uninstalls your app or you revoke your client secret":
    # https://shopify.dev/docs/apps/build/security/credentials-and-data/use-expiring-offline-access-tokens
    probe_acquits=True,
)

DOMAIN = re.compile(LABEL + r"\.myshopify\.com")
FROZEN = frozenset({402, 423})  # https://shopify.dev/docs/api/usage/response-codes: frozen, locked
CALLBACK_TOLERANCE_S = 90  # Shopify/shopify-app-js, lib/utils/hmac-validator.ts
UNSIGNED = frozenset({"hmac", "signature"})  # the second is of an older scheme (same file)
PLAIN = "-_.!~*'()"  # what encodeURIComponent leaves as it is (same file)

_HMAC = re.compile(r"[0-9a-f]{64}")


def check_secret(secret: bytes) -> str | None:
    """A client secret of the app, as the Dev Dashboard shows it."""
    if secret.startswith((b"shpat_", b"shpca_", b"shppa_", b"shpua_", b"shprt_")):
        return "is a token, not the app's client secret"
    return text_secret_complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Shopify signed this exact body. No time is signed, so `now` says nothing.

    While the client secret is being changed, webhooks come signed with either.
    https://shopify.dev/docs/apps/build/authentication-authorization/client-secrets/rotate-revoke-client-credentials
    """
    sent = raw(header(delivery, f"{_family(delivery)}-hmac-sha256"))
    return Verified("hmac-sha256", secret=matching(trust.secrets, lambda key: hmac_base64(key, delivery.body), [sent]))


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item, named by its topic. Ids, like the topic, are not signed: they tell a retry, and are no protection."""
    told = _told(delivery.headers, _family(delivery))
    if not told["topic"]:
        raise Malformed("the topic is missing")
    sent = document(delivery.body)
    name = event_name(told["topic"].replace("/", "."))
    return [
        Item(
            event=name,
            data=delivery.body,
            accounts=_shop(_named_in(sent) or told["shop-domain"]),
            dedupe=_dedupe(delivery, told),
            occurred_at=iso_instant(told["triggered-at"]),
            signal=FACTS.is_signal(name),
        )
    ]


def interpret(said: Said) -> Sequence[Signal]:
    """An uninstall is the Shop resource, which names itself; a change of scopes is of the shop that the item names."""
    sent = document(said.data)
    if said.event == "app.scopes_update":
        told = [said.headers.get(f"{family}-shop-domain", "") for family in FAMILIES]
        shop = _shop(_named_in(sent) or next(filter(None, told), ""))
        if not shop or not isinstance(sent.get("current"), list):
            raise Malformed("not a change of scopes")
        return [Signal(says="scopes_changed", reason="scopes_updated", accounts=shop)]
    shop = _shop(text(sent.get("myshopify_domain")))
    if not shop or shop != _shop(_named_in(sent)):
        raise Malformed("not a shop")
    return [Signal(says="revoked", reason="app_uninstalled", accounts=shop)]


def check_callback(parameters: Mapping[str, str], app: App) -> None:
    """Raise `Refused` unless Shopify signed these parameters just now, for the shop that the session is about.

    Step "Verify the callback" of the page above; by each client secret that is still known.
    """
    sent, stamp = parameters.get("hmac", ""), parameters.get("timestamp", "")
    if not sent:
        raise SignatureMissing("hmac")
    if not _HMAC.fullmatch(sent):
        raise SignatureMismatch("hmac is not of the expected form")
    signed_at = signed_time(stamp)
    message = "&".join(
        f"{quote(name, safe=PLAIN)}={quote(value, safe=PLAIN)}"
        for name, value in sorted(parameters.items())
        if name not in UNSIGNED
    ).encode()
    secrets = [secret.encode() for secret in (app.client_secret, *app.older_secrets)]
    matching(secrets, lambda secret: hmac_hex(secret, message), [raw(sent)])
    if app.now is not None:
        within(signed_at, app.now, CALLBACK_TOLERANCE_S)
    if not equal(parameters.get("shop", "").encode(), _domain(app).encode()):
        raise WrongSender("another shop")


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """Granted scopes are told without the reading that writing brings along."""
    found = oauth.token_set(OAUTH, answer)
    return dict.fromkeys(asked.scopes, replace(found, scopes=None if found.scopes is None else _implied(found.scopes)))


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The shop, by its permanent domain, which is the one that the session is about."""
    said = await _asked(http, app, next(iter(tokens.values())), "{ shop { myshopifyDomain } }")
    if at(said, "shop", "myshopifyDomain") != _domain(app):
        raise OddAnswer("other_shop")
    subject = f"shop:{_domain(app)}"
    return Identity(subject=subject, accounts=(subject,), reach=subject)


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """Uninstall the app, which takes an access token that is still good.

    https://shopify.dev/docs/api/admin-graphql/latest/mutations/appUninstall
    """
    try:
        await _uninstall(http, app, tokens)
    except GrantEnded:
        fresh = await oauth_calls.last_access(http, OAUTH, app, tokens)
        if fresh is not None:
            await _uninstall(http, app, replace(tokens, access_token=fresh))


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """What the app may do in the shop, which needs no scope.

    https://shopify.dev/docs/api/admin-graphql/latest/queries/currentAppInstallation
    """
    said = await _asked(http, app, tokens, "{ currentAppInstallation { accessScopes { handle } } }")
    told = at(said, "currentAppInstallation", "accessScopes")
    if not isinstance(told, list):
        raise OddAnswer("no_scopes")
    return _implied(frozenset(text(at(one, "handle")) for one in told) - {""})


async def _uninstall(http: Http, app: App, tokens: TokenSet) -> None:
    said = await _asked(http, app, tokens, "mutation { appUninstall { app { id } userErrors { code } } }")
    if at(said, "appUninstall", "userErrors") != []:
        raise OddAnswer("not_uninstalled")


async def _asked(http: Http, app: App, tokens: TokenSet, query: str) -> dict[str, Any]:
    url = oauth.filled(f"{OAUTH.api_base}/graphql.json", OAUTH, app)
    response = await http.send(graphql.query(url, query, {"x-shopify-access-token": tokens.access_token}))
    if response.status in FROZEN:
        raise Suspended(status=response.status)
    return graphql.data(response)


def _domain(app: App) -> str:
    return oauth.filled("{shop}.myshopify.com", OAUTH, app)


def _family(delivery: Delivery) -> str:
    """Which headers speak. A delivery with both signatures is of neither: one of them was not looked at."""
    signed = [family for family in FAMILIES if delivery.headers.get(f"{family}-hmac-sha256")]
    if not signed:
        raise SignatureMissing("x-shopify-hmac-sha256")
    if len(signed) > 1:
        raise SignatureMismatch("two families of headers")
    return signed[0]


def _told(headers: Mapping[str, str], family: str) -> dict[str, str]:
    return {name: headers.get(f"{family}-{name}", "") for name in NAMED}


def _dedupe(delivery: Delivery, told: Mapping[str, str]) -> str | None:
    """The webhook's id; where only the event has one, an action of a merchant that several subscriptions tell of."""
    if (webhook := identifier(told["webhook-id"])) is not None:
        return webhook
    event = identifier(told["event-id"])
    handle = delivery.headers.get(f"{_family(delivery)}-handle", "")
    return None if event is None else identifier(f"{event}/{told['topic']}/{handle}")


def _named_in(sent: Mapping[str, Any]) -> str:
    """The Shop resource has `myshopify_domain`; compliance webhooks have `shop_domain`.

    https://shopify.dev/docs/apps/build/compliance/privacy-law-compliance
    """
    return text(sent.get("myshopify_domain")) or text(sent.get("shop_domain"))


def _shop(domain: str) -> tuple[str, ...]:
    return (f"shop:{domain}",) if DOMAIN.fullmatch(domain) else ()


def _implied(scopes: frozenset[str]) -> frozenset[str]:
    return scopes | {
        one.replace("write_", "read_", 1) for one in scopes if one.startswith(("write_", "unauthenticated_write_"))
    }
