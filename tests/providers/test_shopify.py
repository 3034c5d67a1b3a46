"""Shopify: its vectors, both families of headers, whose delivery it is, what it says of grants, and signed callbacks."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from gateway import exchange
from providers import shopify
from providers.contract import Delivery, Item, Trust
from providers.errors import (
    Malformed,
    Misconfigured,
    Refused,
    SignatureMismatch,
    SignatureMissing,
    TimestampOutOfRange,
    WrongSender,
)
from providers.oauth import App
from providers.signals import Said, Signal
from tests import vectors
from tests.providers.test_oauth_apps import integration
from tests.signers import SIGNERS
from tests.signers_c import SHOP, shopify_order, shopify_shop
from tests.signing import NOW, signed, trusting

SHOPIFY, EVENTS = SIGNERS["shopify"], SIGNERS["shopify/events"]
PUBLISHED = vectors.load("shopify")


def item(body: bytes, *, events: bool = False, **headers: str) -> Item:
    """The one item of a signed `body`; `headers` by their names behind the family's, "_" for "-"."""
    family = "shopify" if events else "x-shopify"
    over = {f"{family}-{name.replace('_', '-')}": value for name, value in headers.items()}
    delivery = signed(EVENTS if events else SHOPIFY, body, headers=over)
    (found,) = shopify.items(delivery, shopify.verify(delivery, trusting(SHOPIFY), NOW))
    return found


def said(found: Item, **headers: str) -> Said:
    """The item as it lies on the log."""
    return Said(event=found.event, data=found.data, content_type=found.content_type, headers=headers)


@pytest.mark.parametrize("vector", PUBLISHED["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """Shopify's own sample, under either family's header, and one byte less."""
    trust = Trust(secrets=(vector["secret"].encode(),), endpoint=False)
    if vector["valid"]:
        verified = shopify.verify(vectors.delivery(vector), trust, vectors.now(vector))
        assert shopify.items(vectors.delivery(vector), verified)[0].event == "products.create"
    else:
        with pytest.raises(Refused):
            shopify.verify(vectors.delivery(vector), trust, vectors.now(vector))


def test_a_delivery_with_the_headers_of_both_families_is_of_neither() -> None:
    """Though each signature is right: readers would differ on which topic counts."""
    ours, others = signed(SHOPIFY), signed(EVENTS)
    with pytest.raises(SignatureMismatch):
        shopify.verify(replace(ours, headers={**ours.headers, **others.headers}), trusting(SHOPIFY), NOW)


@pytest.mark.parametrize("events", [False, True])
def test_an_order_is_the_shops_that_the_header_names(events: bool) -> None:
    """Nothing in its body does. A retry has the same webhook id."""
    found = item(shopify_order(), events=events, triggered_at="2026-11-23T11:59:59.123456789Z")
    assert (found.event, found.accounts, found.signal) == ("orders.create", (f"shop:{SHOP}",), False)
    assert found.dedupe == "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert found.occurred_at == datetime(2026, 11, 23, 11, 59, 59, 123456, tzinfo=UTC)


def test_without_a_webhook_id_the_event_and_the_subscription_tell_a_retry() -> None:
    """One action of a merchant, told to two subscriptions, is two deliveries."""
    first = item(shopify_order(), events=True, webhook_id="", handle="all")
    other = item(shopify_order(), events=True, webhook_id="", handle="some")
    assert first.dedupe == "event-of-3f2504e0-4f89-41d3-9a0c-0305e82c3301/orders/create/all"
    assert other.dedupe not in (None, first.dedupe)
    assert item(shopify_order(), webhook_id="", event_id="").dedupe is None


@pytest.mark.parametrize("body", [shopify_shop(), json.dumps({"shop_id": 1, "shop_domain": SHOP}).encode()])
def test_a_body_that_names_its_shop_is_believed_and_the_header_is_not(body: bytes) -> None:
    """The header is not signed."""
    assert item(body, shop_domain="victim.myshopify.com").accounts == (f"shop:{SHOP}",)


@pytest.mark.parametrize(
    "domain", ["", "shop1.myshopify.io", "a.b.myshopify.com", "myshopify.com", SHOP + "\n", SHOP.upper()]
)
def test_what_is_no_shops_domain_is_no_account(domain: str) -> None:
    assert item(shopify_order(), shop_domain=domain).accounts == ()


def test_a_delivery_without_a_topic_says_nothing() -> None:
    with pytest.raises(Malformed):
        item(shopify_order(), topic="")


def test_an_uninstall_is_of_the_shop_in_the_signed_body_and_is_checked_first() -> None:
    """`shop/update` has the same body, and topics are not signed: so it proves nothing by itself."""
    found = item(shopify_shop(), topic="app/uninstalled", shop_domain="victim.myshopify.com")
    assert (found.event, found.signal) == ("app.uninstalled", True)
    assert shopify.interpret(said(found)) == [
        Signal(says="revoked", reason="app_uninstalled", accounts=(f"shop:{SHOP}",), knows="nothing")
    ]
    assert not item(shopify_shop(), topic="shop/update").signal
    with pytest.raises(Malformed):
        shopify.interpret(said(item(shopify_order(), topic="app/uninstalled")))


def test_a_change_of_scopes_is_of_the_shop_that_the_item_names() -> None:
    """Its body holds the shop's number only."""
    body = {
        "id": 1,
        "previous": ["read_products"],
        "current": ["read_orders"],
        "updated_at": "2026-11-23T07:00:00-05:00",
    }
    found = item(json.dumps(body).encode(), topic="app/scopes_update")
    assert (found.event, found.signal, found.accounts) == ("app.scopes_update", True, (f"shop:{SHOP}",))
    due = [Signal(says="scopes_changed", reason="scopes_updated", accounts=found.accounts, knows="nothing")]
    for family in shopify.FAMILIES:
        assert shopify.interpret(said(found, **{f"{family}-shop-domain": SHOP})) == due
    with pytest.raises(Malformed):
        shopify.interpret(said(found))
    with pytest.raises(Malformed):  # an order, sent again under another topic
        shopify.interpret(said(item(shopify_order(), topic="app/scopes_update"), **{"x-shopify-shop-domain": SHOP}))


@pytest.mark.parametrize("secret", [b"shpat_0123456789abcdef0123456789abcdef", b"shprt_0123456789", b"short"])
def test_what_is_no_client_secret_is_named(secret: bytes) -> None:
    assert shopify.check_secret(secret)


# Callbacks

CALLBACK = PUBLISHED["callback"]
AT = datetime.fromtimestamp(CALLBACK["now"], UTC)
QUERY = dict(parse_qsl(CALLBACK["query"]))
APP = App(client_id="c-1", client_secret=CALLBACK["secret"], parts={"shop": "some-shop"}, now=AT)


def signed_callback(secret: str = "hush", **changed: str) -> dict[str, str]:
    """Parameters as Shopify signs them, written against its documentation."""
    sent = {name: value for name, value in {**QUERY, **changed}.items() if name != "hmac"}
    message = urlencode(sorted(sent.items())).replace("+", "%20")
    return {**sent, "hmac": hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()}


def refusal(parameters: Mapping[str, str], app: App = APP) -> type[Refused] | None:
    try:
        shopify.check_callback(parameters, app)
    except Refused as refused:
        return type(refused)
    return None


def test_the_published_callback_is_what_it_was_signed_as() -> None:
    """Every parameter of it is covered: one flipped bit in any of them, or one more, and it is refused."""
    assert refusal(QUERY) is None
    for name, value in QUERY.items():
        for at in range(len(value)):
            spoilt = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            assert refusal({**QUERY, name: spoilt}) is not None, name
        assert refusal({key: kept for key, kept in QUERY.items() if key != name}) is not None
    assert refusal({**QUERY, "host": "x"}) is SignatureMismatch
    assert refusal({**QUERY, "hmac": QUERY["hmac"].upper()}) is SignatureMismatch
    assert refusal({**QUERY, "hmac": ""}) is SignatureMissing
    assert refusal({}) is SignatureMissing


def test_spaces_and_further_parameters_are_signed_percent_encoded() -> None:
    """shopify-app-js, hmac-validator.test.ts: %20 and not +; the parameter of the older scheme is not covered."""
    said = signed_callback(custom="hello world", host="YWRtaW4uc2hvcGlmeS5jb20vc3RvcmUvc2hvcA==")
    assert refusal(said) is None
    assert refusal({**said, "signature": "whatever"}) is None
    assert refusal({**said, "custom": "hello+world"}) is SignatureMismatch


def test_a_true_signature_of_another_shop_app_or_hour_is_refused() -> None:
    assert refusal(signed_callback(shop="other-shop.myshopify.com")) is WrongSender
    assert refusal(signed_callback(shop="some-shop")) is WrongSender
    assert refusal(signed_callback("another app's")) is SignatureMismatch
    for late_s, refused in ((90, None), (-90, None), (91, TimestampOutOfRange), (-91, TimestampOutOfRange)):
        assert refusal(QUERY, replace(APP, now=AT + timedelta(seconds=late_s))) is refused
    assert refusal(signed_callback(timestamp="soon")) is SignatureMismatch
    with pytest.raises(Misconfigured):
        shopify.check_callback(QUERY, replace(APP, parts={}))


def test_while_the_client_secret_is_changed_either_may_have_signed() -> None:
    """The gateway hands on the older ones with the newest."""
    app = exchange.app_of(
        integration("shopify", client_secrets=(b"brand-new", b"hush")),
        "https://hooks.example.com",
        {"shop": "some-shop"},
        now=AT,
    )
    assert refusal(QUERY, app) is None
    assert refusal(signed_callback("brand-new"), app) is None
    assert refusal(QUERY, replace(app, older_secrets=())) is SignatureMismatch
    assert "hush" not in repr(app)


def test_a_scanner_without_headers_learns_nothing() -> None:
    with pytest.raises(SignatureMissing):
        shopify.verify(Delivery("POST", "", "", "", {}, b"{}"), trusting(SHOPIFY), NOW)
