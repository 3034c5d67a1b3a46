"""Standard Webhooks as a provider: what a body becomes, and what an integration may say about its sender."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from providers import standard_webhooks
from providers.contract import Item
from providers.errors import Malformed, TimestampOutOfRange
from tests.signers import SIGNERS
from tests.signing import NOW, signed, trusting

HMAC = SIGNERS["standard-webhooks"]


def item(body: bytes, content_type: str = "application/json", settings: dict[str, Any] | None = None) -> Item:
    """The one item of a signed `body`, at an integration with these settings."""
    delivery = signed(HMAC, body, delivery_id="msg_1", headers={"content-type": content_type})
    trust = replace(trusting(HMAC), settings=standard_webhooks.Settings(**settings or {}).model_dump())
    (found,) = standard_webhooks.items(delivery, standard_webhooks.verify(delivery, trust, NOW))
    return found


def test_an_event_is_named_by_its_type() -> None:
    """As the specification recommends bodies to be; the message id is constant over retries."""
    found = item(b'{"type":"contact.created","timestamp":"2026-11-23T11:59:59Z","data":{}}')
    assert (found.event, found.dedupe, found.accounts) == ("contact.created", "msg_1", ())
    assert found.occurred_at == NOW - timedelta(seconds=1)
    assert found.content_type == "application/json"


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"type":7}', b'{"type":""}', b'"text"'])
def test_json_without_a_type_is_an_event(body: bytes) -> None:
    """There is no other name for it."""
    assert item(body, "application/json").event == "event"


@pytest.mark.parametrize(
    ("stated", "body", "kept"),
    [
        ("text/plain; charset=iso-8859-1", b"caf\xe9", "text/plain; charset=iso-8859-1"),
        ("application/cloudevents+json; charset=utf-8", b"{}", "application/cloudevents+json; charset=utf-8"),
        ("", b"{}", "application/json"),
        ("", b"\x00\x01", "application/octet-stream"),
        ("a/b\r\nx: y", b"?", "application/octet-stream"),
        ("é", b"{}", "application/json"),
        ("x/" + "y" * 200, b"?", "application/octet-stream"),
    ],
)
def test_bodies_need_not_be_json(stated: str, body: bytes, kept: str) -> None:
    """The content type is kept where it is one."""
    found = item(body, stated)
    assert found.content_type == kept
    assert found.data == body


@pytest.mark.parametrize("stated", ["application/json", "application/cloudevents+json"])
def test_what_says_json_and_is_not_is_malformed(stated: str) -> None:
    """A clear answer to the sender, rather than a surprise for a consumer."""
    with pytest.raises(Malformed):
        item(b"{", stated)


@pytest.mark.parametrize(
    ("pointer", "accounts"),
    [
        ("/data/account", ("account:a1",)),
        ("/data/list/1", ("account:7",)),
        ("/a~1b~0", ("account:x",)),
        ("/data/list/9", ()),
        ("/data/list/01", ()),
        ("/data", ()),
        ("/nothing/there", ()),
        (None, ()),
    ],
)
def test_the_account_is_where_the_settings_point(pointer: str | None, accounts: tuple[str, ...]) -> None:
    """A JSON pointer; where it finds nothing, the delivery is nobody's, not refused."""
    body = b'{"data":{"account":"a1","list":["x",7]},"a/b~":"x"}'
    assert item(body, settings={"account_pointer": pointer}).accounts == accounts
    assert item(b"text", "text/plain", {"account_pointer": pointer}).accounts == ()


def test_the_tolerance_is_a_setting() -> None:
    """Both ways, to the second."""
    trust = replace(trusting(HMAC), settings={"tolerance_s": 20})
    for skew_s in (20, -20):
        standard_webhooks.verify(signed(HMAC, now=NOW - timedelta(seconds=skew_s)), trust, NOW)
    for skew_s in (21, -21):
        with pytest.raises(TimestampOutOfRange):
            standard_webhooks.verify(signed(HMAC, now=NOW - timedelta(seconds=skew_s)), trust, NOW)


@pytest.mark.parametrize(
    "settings",
    [
        {"tolerance_s": 0},
        {"tolerance_s": 10**6},
        {"account_pointer": "data"},
        {"account_pointer": "/a~2"},
        {"account_pointer": ""},
        {"x": 1},
    ],
)
def test_wrong_settings_are_refused_when_they_are_made(settings: dict[str, Any]) -> None:
    """Not when a delivery comes."""
    with pytest.raises(ValidationError):
        standard_webhooks.Settings(**settings)
