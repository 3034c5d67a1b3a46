"""Microsoft Graph: a handshake that anyone can ask for, and arrays in which each element proves itself."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import microsoft
from providers.contract import Answer, Delivery, Trust, Verified
from providers.errors import HandshakeRefused, Malformed, NotConfigured, SignatureMismatch, SignatureMissing
from tests.providers.properties import PROPERTY, json_values
from tests.signers_b import SIGNERS, microsoft_body, microsoft_change, microsoft_lifecycle
from tests.signing import NOW, URL, signed, trusting

GRAPH = SIGNERS["microsoft"]
NEW, OLD, OTHER = GRAPH.secrets
ENDPOINT = Trust(secrets=(NEW,), endpoint=True)
TOKEN = "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e-096a-494c-aaf1"
MIXED = Verified("client_state", only=None)


def shaking(query: str, method: str = "POST") -> Delivery:
    """A validation request with this query."""
    return Delivery(
        method=method, url=f"{URL}/ep_1?{query}", path="/hooks/int_1/ep_1", query=query, headers={}, body=b""
    )


def change(state: bytes | None, **members: object) -> dict[str, object]:
    return microsoft_change(clientState=None if state is None else state.decode(), **members)


# The handshake


@pytest.mark.parametrize("encode", [quote, quote_plus], ids=["%20", "+"])
def test_the_validation_token_is_echoed_decoded_as_plain_text(encode: object) -> None:
    """Both spellings of a space are seen in the wild."""
    query = "validationToken=" + encode(TOKEN)  # type: ignore[operator]  # one of two functions
    assert microsoft.handshake(shaking(query), ENDPOINT) == Answer(200, TOKEN.encode(), "text/plain")


def test_a_query_of_our_own_is_left_alone() -> None:
    """Graph keeps the query of the notification URL and adds to it."""
    answer = microsoft.handshake(shaking("a=1&b=&validationToken=aZ0._%7E-%2B%2F%3D%3A"), ENDPOINT)
    assert answer is not None
    assert answer.body == b"aZ0._~-+/=:"


def test_a_notification_is_no_handshake() -> None:
    """Nothing to echo: go on to verify."""
    for query in ("", "a=1", "validationtoken=x", "x=validationToken"):
        assert microsoft.handshake(shaking(query), ENDPOINT) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "<script>alert(1)</script>",
        "a<b",
        "a>b",
        "a&b",
        "a\r\nset-cookie: x=1",
        "a\nb",
        "tab\t",
        "null\x00",
        "delete\x7f",
        "é",
        "\u202e",
        "x" * 1025,
    ],
)
def test_a_hostile_token_is_not_echoed(token: str) -> None:
    """No markup, no line ends, nothing beyond ASCII, nothing long: we are nobody's mirror."""
    with pytest.raises(HandshakeRefused):
        microsoft.handshake(shaking("validationToken=" + quote(token)), ENDPOINT)


@pytest.mark.parametrize(
    "query", ["validationToken=a&validationToken=b", "validationToken=%ff", "&".join(["a=1"] * 101), "validationToken"]
)
def test_an_odd_query_is_not_answered(query: str) -> None:
    """Doubled tokens, broken encoding, a hundred fields, a token without a value."""
    with pytest.raises(HandshakeRefused):
        microsoft.handshake(shaking(query), ENDPOINT)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_only_post_shakes_hands(method: str) -> None:
    """A GET would be a link that somebody clicks."""
    with pytest.raises(HandshakeRefused):
        microsoft.handshake(shaking("validationToken=x", method), ENDPOINT)
    assert microsoft.FACTS.handshake is not None
    assert microsoft.FACTS.handshake.methods == {"POST"}
    assert microsoft.FACTS.handshake.where == "confirming"


def test_the_app_wide_url_shakes_no_hands() -> None:
    """Only an endpoint can be waiting for one."""
    with pytest.raises(HandshakeRefused):
        microsoft.handshake(shaking("validationToken=x"), Trust(secrets=(NEW,), endpoint=False))


@PROPERTY
@given(st.text())
def test_whatever_is_echoed_is_harmless(token: str) -> None:
    """Printable ASCII without markup, exactly as sent; or nothing."""
    try:
        answer = microsoft.handshake(shaking("validationToken=" + quote(token, errors="replace")), ENDPOINT)
    except HandshakeRefused:
        return
    assert answer is not None
    assert answer.body == token.encode("ascii")
    assert token.isprintable()
    assert not set(token) & set("<>&")


# Verifying


def test_each_element_proves_itself() -> None:
    """Of a mixed batch only the elements with our clientState are taken, wherever they stand."""
    body = microsoft_body(
        change(OTHER), change(NEW, changeType="updated"), change(None), change(OLD, changeType="deleted"), change(b"")
    )
    delivery = signed(GRAPH, body)
    verified = microsoft.verify(delivery, trusting(GRAPH, NEW, OLD), NOW)
    assert verified == Verified("client_state", secret=1, only=frozenset({1, 3}))
    assert [item.event for item in microsoft.items(delivery, verified)] == ["message.updated", "message.deleted"]


def test_nothing_is_taken_when_no_element_matches() -> None:
    """Other apps' states, and none at all."""
    with pytest.raises(SignatureMismatch):
        microsoft.verify(signed(GRAPH, microsoft_body(change(OTHER), change(None))), trusting(GRAPH), NOW)
    with pytest.raises(SignatureMissing):
        microsoft.verify(signed(GRAPH, microsoft_body(change(None), change(b""))), trusting(GRAPH), NOW)


@pytest.mark.parametrize("state", [None, True, 1, [NEW.decode()], {"clientState": NEW.decode()}, "", "\ud83d"])
def test_a_state_that_is_no_text_matches_nothing(state: object) -> None:
    """Nor does an unfinished emoji raise."""
    body = json.dumps({"value": [{**microsoft_change(), "clientState": state}]}).encode()
    with pytest.raises((SignatureMismatch, SignatureMissing)):
        microsoft.verify(signed(GRAPH, body), trusting(GRAPH), NOW)


def test_a_state_elsewhere_in_the_body_counts_for_nothing() -> None:
    """Not beside `value`, not inside resourceData, not in an array that a doubled key hides."""
    ours, theirs = json.dumps(change(NEW)), json.dumps(change(OTHER, resourceData={"clientState": NEW.decode()}))
    for body in (
        f'{{"clientState":"{NEW.decode()}","value":[{theirs}]}}',
        f'{{"value":[{ours}],"value":[{theirs}]}}',
        f'{{"value":[{theirs[:-1]},"clientState":"{NEW.decode()}","clientState":"x"}}]}}',
    ):
        with pytest.raises(SignatureMismatch):
            microsoft.verify(signed(GRAPH, body.encode()), trusting(GRAPH), NOW)


def test_an_escaped_state_is_the_same_state_and_is_blanked_too() -> None:
    """JSON may write a letter as \\u0063; the stored event must not give the secret away in that form either."""
    spelt = "".join(f"\\u{ord(letter):04x}" for letter in NEW.decode())
    body = b'{"value":[{"clientState":"%s","subscriptionId":"s"}]}' % spelt.encode()
    delivery = signed(GRAPH, body)
    verified = microsoft.verify(delivery, trusting(GRAPH), NOW)
    (item,) = microsoft.items(delivery, verified)
    assert json.loads(item.data)["clientState"] == NEW.decode()
    assert json.loads(microsoft.redact(item.data))["clientState"] == "*" * len(spelt)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"value":[]}',
        b'{"value":{}}',
        b'{"value":[1]}',
        b'{"value":[{}',
        b'{"value":null}',
    ],
)
def test_a_body_without_notifications_is_malformed(body: bytes) -> None:
    """A clear 400."""
    with pytest.raises(Malformed):
        microsoft.verify(signed(GRAPH, body), trusting(GRAPH), NOW)


@pytest.mark.parametrize("values", [b"{}", b"0", b'{"clientState":"x"}'], ids=["objects", "numbers", "elements"])
def test_a_body_of_countless_values_is_not_parsed(values: bytes) -> None:
    """It is not verified yet: 25 MiB of them took a second of the process and 1.3 GB, for whoever knew a URL."""
    body = b'{"value":[' + (values + b",") * (25 * 1024 * 1024 // (len(values) + 1)) + values + b"]}"
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            microsoft.verify(replace(signed(GRAPH), body=body), ENDPOINT, NOW)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_body_of_countless_members_is_not_walked() -> None:
    """Members beside `value` are passed one by one, in Python: 260 KB of them held the event loop for 81 ms."""
    many = b",".join(b'"%d":0' % number for number in range(microsoft.MOST_MEMBERS))
    whole = signed(GRAPH).body
    with pytest.raises(Malformed, match="members"):
        microsoft.verify(replace(signed(GRAPH), body=whole[:-1] + b"," + many + b"}"), ENDPOINT, NOW)
    few = many.rpartition(b",")[0]
    assert microsoft.verify(replace(signed(GRAPH), body=whole[:-1] + b"," + few + b"}"), ENDPOINT, NOW).only is None


def test_a_long_encrypted_content_is_one_value() -> None:
    """Rich notifications are as long as the resources in them."""
    one = change(NEW, encryptedContent={"data": "A" * 8_000_000})
    assert microsoft.verify(replace(signed(GRAPH), body=microsoft_body(one)), ENDPOINT, NOW).only is None


def test_without_a_secret_nothing_is_looked_at() -> None:
    """Neither at an endpoint nor app-wide; an empty secret is none."""
    for secrets in ((), (b"",)):
        with pytest.raises(NotConfigured):
            microsoft.verify(signed(GRAPH), replace(trusting(GRAPH), secrets=secrets), NOW)


# Items


def test_lifecycle_events_are_signals_and_never_deduplicated() -> None:
    """Two `missed` look exactly alike, and both mean something."""
    missed, asked = microsoft_lifecycle("missed", id="x"), microsoft_lifecycle("reauthorizationRequired")
    found = microsoft.items(signed(GRAPH, microsoft_body(missed, missed, asked)), MIXED)
    assert [item.event for item in found] == [
        "lifecycle.missed",
        "lifecycle.missed",
        "lifecycle.reauthorizationrequired",
    ]
    assert all(item.signal and item.dedupe is None for item in found)
    assert found[0].accounts == (
        "subscription:7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
        "tenant:84bd8158-6d4d-4958-8b9f-9d6445542f95",
    )


def test_changes_are_deduplicated_by_their_id_and_only_by_it() -> None:
    """Two changes of one message without id are two events; with an id, a repetition is one."""
    first, again, other = (
        microsoft.items(signed(GRAPH, microsoft_body(microsoft_change(id=name))), MIXED)[0] for name in ("a", "a", "b")
    )
    assert first.dedupe == again.dedupe != other.dedupe
    assert first.dedupe is not None
    without = microsoft.items(signed(GRAPH, microsoft_body(microsoft_change(), microsoft_change())), MIXED)
    assert [item.dedupe for item in without] == [None, None]
    assert not any(item.signal for item in without)


@pytest.mark.parametrize(
    ("members", "event"),
    [
        ({}, "message.created"),
        ({"resourceData": {"@odata.type": "#microsoft.graph.chatMessage"}}, "chatmessage.created"),
        ({"resourceData": None}, "messages.created"),
        ({"resourceData": None, "resource": "chats('19:x@thread.v2')/messages('1615971548136')"}, "messages.created"),
        ({"resourceData": None, "resource": "users/6b1f-4"}, "users.created"),
        ({"resourceData": None, "resource": "/"}, "resource.created"),
        ({"resourceData": "x", "resource": 7, "changeType": None}, "resource"),
        ({"changeType": "Validation: Testing"}, "message.validation__testing"),
    ],
)
def test_an_event_is_named_by_what_changed_and_how(members: dict[str, object], event: str) -> None:
    """The type where it is told, else the collection of the path."""
    (item,) = microsoft.items(signed(GRAPH, microsoft_body(microsoft_change(**members))), MIXED)
    assert item.event == event


def test_validation_tokens_of_the_request_are_in_no_item() -> None:
    """They authenticate to others; an item is its own element and nothing around it."""
    body = b'{"validationTokens":["eyJ0.eyJ1.c2ln"],"value":[%s]}' % json.dumps(change(NEW)).encode()
    delivery = signed(GRAPH, body)
    (item,) = microsoft.items(delivery, microsoft.verify(delivery, trusting(GRAPH), NOW))
    assert b"eyJ" not in item.data


@PROPERTY
@given(st.lists(st.tuples(st.sampled_from([NEW, OLD, OTHER, b""]), json_values, st.sampled_from(["", " ", "\n\t"]))))
def test_exactly_the_verified_bytes_become_items(drawn: list[tuple[bytes, object, str]]) -> None:
    """Whatever stands around: the elements with a known state, as sent, in order, without the state once redacted."""
    parts = [
        (state, f'{space}{{"a":{json.dumps(value)},{space}"clientState":"{state.decode()}"{space}}}'.encode())
        for state, value, space in drawn
    ]
    body = b'{ "x":[{}], "value" : [' + b" ,".join(part for _, part in parts) + b"\n] }"
    expected = [part.strip() for state, part in parts if state in (NEW, OLD)]
    delivery = signed(GRAPH, body)
    try:
        found = microsoft.items(delivery, microsoft.verify(delivery, trusting(GRAPH, NEW, OLD), NOW))
    except (Malformed, SignatureMismatch, SignatureMissing):
        assert not expected
        return
    assert [item.data for item in found] == expected
    for item in found:
        redacted = microsoft.redact(item.data)
        assert len(redacted) == len(item.data)
        said = json.loads(item.data)
        assert json.loads(redacted) == {**said, "clientState": "*" * len(said["clientState"])}
        assert NEW not in redacted
        assert OLD not in redacted


def test_a_state_longer_than_graph_takes_is_complained_about() -> None:
    """128 characters."""
    assert microsoft.check_secret(b"x" * 128) is None
    assert microsoft.check_secret(b"x" * 129)
