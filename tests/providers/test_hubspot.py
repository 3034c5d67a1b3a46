"""HubSpot: signature v3 against published vectors and HubSpot's own code, and arrays of many portals."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hubspot.utils.signature import Signature  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from providers import hubspot
from providers.contract import Delivery, Trust, Verified
from providers.errors import Malformed, SignatureMismatch, SignatureMissing, TimestampOutOfRange
from tests.providers.properties import PROPERTY, json_values
from tests.signers_b import SIGNERS, hubspot_body, hubspot_event
from tests.signing import NOW, URL, signed, trusting

HUBSPOT = SIGNERS["hubspot"]
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hubspot.json").read_text())
V3 = Verified("v3")


def delivered(vector: dict[str, Any], headers: dict[str, str]) -> tuple[Delivery, Trust]:
    """A published vector as a delivery, and the trust to check it with."""
    body = vector["body"].encode()
    delivery = Delivery(
        method=vector["method"], url=vector["url"], path="/webhook_uri", query="", headers=headers, body=body
    )
    return delivery, Trust(secrets=(vector["secret"].encode(),), endpoint=False)


def by_sdk(body: str, url: str, now: datetime, method: str = "POST") -> dict[str, str]:
    """The headers that HubSpot's own SDK computes."""
    stamp = str(int(now.timestamp() * 1000))
    secret = HUBSPOT.secrets[0].decode()
    signature = Signature.get_signature(secret, body, "v3", url, method, stamp)
    return {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": stamp}


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_the_published_vector_verifies(vector: dict[str, Any]) -> None:
    """At its own time, and not a second beyond 300."""
    delivery, trust = delivered(vector, vector["headers"])
    then = datetime.fromtimestamp(vector["now"], UTC)
    assert hubspot.verify(delivery, trust, then) == Verified("v3", signed_at=then)
    for late in (301, -301):
        with pytest.raises(TimestampOutOfRange) as refused:
            hubspot.verify(delivery, trust, then + timedelta(seconds=late))
        assert refused.value.skew_s == late


@pytest.mark.parametrize("vector", VECTORS["older"], ids=lambda vector: vector["name"])
def test_a_valid_older_signature_is_no_substitute(vector: dict[str, Any]) -> None:
    """V1 and v2 cover no time: alone, beside a wrong v3, or in v3's place, they prove nothing."""
    older = {**vector["headers"], "x-hubspot-signature-version": vector["scheme"]}
    stamp = {"x-hubspot-request-timestamp": "1795435200000"}
    delivery, trust = delivered(vector, older)
    with pytest.raises(SignatureMissing):
        hubspot.verify(delivery, trust, NOW)
    with pytest.raises(SignatureMissing):
        hubspot.verify(replace(delivery, headers={**older, **stamp}), trust, NOW)
    for forged in (vector["headers"]["x-hubspot-signature"], "K36dawei4A+QBNolUOqo7s91KQDWQ5MXZ/QufNYuk/Y="):
        headers = {**older, **stamp, "x-hubspot-signature-v3": forged}
        with pytest.raises(SignatureMismatch):
            hubspot.verify(replace(delivery, headers=headers), trust, NOW)


@PROPERTY
@given(st.text(st.characters(codec="utf-8")), st.sampled_from([URL, URL + "?a=b&c=%20", URL + "?q=%E2%9C%93"]))
def test_what_hubspots_own_code_signs_is_accepted(body: str, url: str) -> None:
    """Any text as the body, method and URL included."""
    delivery = replace(signed(HUBSPOT, body.encode(), url=url), headers=by_sdk(body, url, NOW))
    assert hubspot.verify(delivery, trusting(HUBSPOT), NOW).signed_at == NOW


def test_the_future_is_refused_where_hubspots_own_code_accepts_it() -> None:
    """The SDK looks at age only; a signature from the future would live as long as it likes."""
    real_now = datetime.now(UTC)
    ahead = real_now + timedelta(seconds=9999)
    headers = by_sdk("{}", URL, ahead)
    assert Signature.is_valid(
        headers["x-hubspot-signature-v3"],
        HUBSPOT.secrets[0].decode(),
        "{}",
        URL,
        "POST",
        "v3",
        headers["x-hubspot-request-timestamp"],
    )
    with pytest.raises(TimestampOutOfRange):
        hubspot.verify(replace(signed(HUBSPOT, b"{}"), headers=headers), trusting(HUBSPOT), real_now)


def test_the_url_is_signed_with_twelve_escapes_decoded() -> None:
    """Those of HubSpot's table and no others, once, in either case."""
    escaped = "https://h.example/x%3A%2F%3F%40%21%24%27%28%29%2A%2C%3B?a=%3ab&c=%20%26%2B%25%253A"
    due = "https://h.example/x:/?@!$'()*,;?a=:b&c=%20%26%2B%25%253A"
    assert hubspot.signed_url(escaped) == due
    delivery = replace(signed(HUBSPOT, b"{}"), url=escaped, headers=by_sdk("{}", due, NOW))
    assert hubspot.verify(delivery, trusting(HUBSPOT), NOW)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("PUT", URL),
        ("POST", URL.replace("https", "http")),
        ("POST", URL + "/"),
        ("POST", URL + "?"),
        ("POST", URL.replace("hooks.", "hook.")),
    ],
)
def test_method_and_url_are_covered(method: str, url: str) -> None:
    """A request signed for one place is worth nothing at another."""
    with pytest.raises(SignatureMismatch):
        hubspot.verify(replace(signed(HUBSPOT), method=method, url=url), trusting(HUBSPOT), NOW)


@pytest.mark.parametrize("stamp", ["1795435200", "1795435200000.0", "+1795435200000", " 1795435200000", "9" * 30, "x"])
def test_a_timestamp_in_another_form_is_refused(stamp: str) -> None:
    """Milliseconds, digits only."""
    with pytest.raises((SignatureMismatch, TimestampOutOfRange)):
        hubspot.verify(signed(HUBSPOT, headers={"x-hubspot-request-timestamp": stamp}), trusting(HUBSPOT), NOW)


# Items


def test_a_mixed_array_becomes_an_item_for_each_event() -> None:
    """Each with its own portal, name, time and key: no portal sees another's."""
    events = (
        hubspot_event(),
        hubspot_event(portalId=62516, subscriptionType="company.propertyChange", propertyName="name"),
        hubspot_event(eventId=101, occurredAt=1795435199500),
    )
    found = hubspot.items(signed(HUBSPOT, hubspot_body(*events)), V3)
    assert [json.loads(item.data) for item in found] == list(events)
    assert [item.event for item in found] == ["contact.creation", "company.propertychange", "contact.creation"]
    assert [item.accounts for item in found] == [("portal:62515",), ("portal:62516",), ("portal:62515",)]
    assert found[2].occurred_at == datetime.fromisoformat("2026-11-23T11:59:59.500+00:00")
    assert len({item.dedupe for item in found}) == 3


def test_another_attempt_has_the_same_key() -> None:
    """`attemptNumber` is all that changes."""
    first, again = hubspot.items(signed(HUBSPOT, hubspot_body(hubspot_event(), hubspot_event(attemptNumber=7))), V3)
    assert first.dedupe == again.dedupe is not None


@pytest.mark.parametrize("name", [*hubspot.DEDUPE, "propertyName", "fromObjectId", "toObjectId"])
def test_the_event_id_alone_is_not_the_key(name: str) -> None:
    """HubSpot does not promise that it is unique; whatever else differs tells two events apart."""
    first, other = hubspot.items(signed(HUBSPOT, hubspot_body(hubspot_event(), hubspot_event(**{name: 987}))), V3)
    assert first.dedupe != other.dedupe


@pytest.mark.parametrize("missing", ["eventId", "occurredAt"])
def test_without_event_id_or_time_nothing_is_deduplicated(missing: str) -> None:
    """A loss is worse than a repetition."""
    (item,) = hubspot.items(signed(HUBSPOT, hubspot_body(hubspot_event(**{missing: None}))), V3)
    assert item.dedupe is None


def test_a_lone_object_is_one_item() -> None:
    """As workflow actions send it."""
    body = b' {"portalId": 1, "origin": {}} '
    (item,) = hubspot.items(signed(HUBSPOT, body), V3)
    assert (item.event, item.data, item.accounts, item.dedupe) == ("unknown", body, ("portal:1",), None)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"7", b"[1]", b"[[]]", b"[{}", b"{}{}", b"[{},]", b"\xff", b"[null]"]
)
def test_a_body_without_events_is_malformed(body: bytes) -> None:
    """Signed or not."""
    with pytest.raises(Malformed):
        hubspot.items(signed(HUBSPOT, body), V3)


@PROPERTY
@given(st.lists(st.dictionaries(st.sampled_from(["portalId", "eventId", "x"]), json_values), min_size=1), st.data())
def test_items_are_the_bytes_as_sent(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Sliced, whatever white space and escapes stand in and between them."""
    space = st.sampled_from(["", " ", "\n", "\t\r\n "])
    parts = [
        json.dumps(event, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass") for event in events
    ]
    try:
        b"".join(parts).decode()
    except UnicodeDecodeError:
        return  # an unfinished surrogate cannot be UTF-8
    body = b"["
    for number, part in enumerate(parts):
        body += (b"," if number else b"") + data.draw(space).encode() + part + data.draw(space).encode()
    assert [item.data for item in hubspot.items(signed(HUBSPOT, body + b"]\n"), V3)] == parts
