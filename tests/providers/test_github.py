"""GitHub: the sha256 signature and no other, both content types, whose an event is, which say something of a grant."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import github
from providers.contract import Delivery, Item, Trust
from providers.errors import Malformed, NotConfigured, Refused, SignatureMismatch, SignatureMissing
from tests import vectors
from tests.providers.properties import PROPERTY
from tests.signers import SIGNERS
from tests.signers_a import github_pull_request
from tests.signing import NOW, signed, trusting

GITHUB = SIGNERS["github"]


def item(body: bytes, event: str = "pull_request", **headers: str) -> Item:
    """The one item of a signed `body`."""
    delivery = signed(GITHUB, body, headers={"x-github-event": event, **headers})
    (found,) = github.items(delivery, github.verify(delivery, trusting(GITHUB), NOW))
    return found


def of(event: str, **members: Any) -> Item:
    """The item of an event with exactly these members."""
    return item(json.dumps(members).encode(), event)


@pytest.mark.parametrize("vector", vectors.load("github")["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """The sample of GitHub's documentation."""
    trust = Trust(secrets=(vector["secret"].encode(),), endpoint=False)
    assert github.verify(vectors.delivery(vector), trust, NOW).scheme == "sha256"


@PROPERTY
@given(st.binary(max_size=300), st.binary(min_size=1, max_size=80))
def test_any_bytes_under_any_secret(body: bytes, secret: bytes) -> None:
    """The reference of GitHub's documentation, over anything."""
    due = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    delivery = Delivery("POST", "", "", "", {"x-hub-signature-256": due}, body)
    assert github.verify(delivery, Trust((b"another", secret), False), NOW).secret == 1
    with pytest.raises(SignatureMismatch):
        github.verify(replace(delivery, body=body + b"\n"), Trust((secret,), False), NOW)


def test_the_legacy_signature_is_no_way_in() -> None:
    """Only sha1, right as it is: missing. A wrong sha256 beside a right sha1: a mismatch."""
    delivery = signed(GITHUB)
    without = {name: value for name, value in delivery.headers.items() if name != "x-hub-signature-256"}
    assert "x-hub-signature" in without
    with pytest.raises(SignatureMissing):
        github.verify(replace(delivery, headers=without), trusting(GITHUB), NOW)
    for wrong in ("sha256=" + "0" * 64, "sha256=", without["x-hub-signature"], "sha1=" + "0" * 40):
        with pytest.raises(SignatureMismatch):
            github.verify(replace(delivery, headers={**without, "x-hub-signature-256": wrong}), trusting(GITHUB), NOW)


def test_a_hook_without_a_secret_is_not_taken() -> None:
    """GitHub then sends no signature; and a secret that is not configured here verifies nothing."""
    with pytest.raises(NotConfigured):
        github.verify(signed(GITHUB), Trust((), False), NOW)


def test_an_event_is_named_by_header_and_action() -> None:
    """`pull_request.opened`; an event without actions by the header alone."""
    found = item(github_pull_request())
    assert found.event == "pull_request.opened"
    assert found.dedupe == "3f2504e0-4f89-41d3-9a0c-0305e82c3301/292430182"
    assert found.accounts == ("installation:957387", "org:38302899", "account:38302899", "repo:186853002")
    assert found.content_type == "application/json"
    assert not found.signal
    assert of("push", ref="refs/heads/main").event == "push"
    assert of("push", action=7).event == "push"
    assert of("weird event é").event == "weird_event__"


def test_a_ping_is_an_ordinary_item() -> None:
    """It proves that the hook works; nobody answers it."""
    found = of("ping", zen="Design for failure.", hook_id=1, repository={"id": 5, "owner": {"id": 6}})
    assert (found.event, found.accounts, found.signal) == ("ping", ("account:6", "repo:5"), False)


def test_form_hooks_are_read_too() -> None:
    """The content type that GitHub offers first: the signature covers the form as it is."""
    body = urlencode({"payload": github_pull_request().decode()}).encode()
    found = item(body)
    assert found.data == body
    assert found.content_type == "application/x-www-form-urlencoded"
    assert replace(found, data=b"", content_type="") == replace(item(github_pull_request()), data=b"", content_type="")


@pytest.mark.parametrize("body", [b"Hello, World!", b"payload=", b"payload=%7B", b"x=1", b"{", b"[]", b"\xff"])
def test_bodies_that_are_neither_are_malformed(body: bytes) -> None:
    """Signed or not."""
    with pytest.raises(Malformed):
        item(body)
    with pytest.raises(Malformed):
        item(body, **{"content-type": "application/json"})


def test_without_its_event_header_a_body_means_nothing() -> None:
    """Every delivery of GitHub's has it."""
    with pytest.raises(Malformed):
        item(github_pull_request(), "")


def test_without_a_delivery_id_nothing_is_deduplicated() -> None:
    """It is not signed, so its absence proves nothing either."""
    assert item(github_pull_request(), **{"x-github-delivery": ""}).dedupe is None


def test_an_event_that_goes_to_several_hooks_is_one_for_each() -> None:
    """An app's and a repository's hook get it under one delivery id; neither may swallow the other's."""
    keys = {item(github_pull_request(), **{"x-github-hook-id": hook}).dedupe for hook in ("1", "2", "")}
    assert len(keys) == 3


def test_a_revoked_authorization_names_its_sender() -> None:
    """The one event in which the sender is the account, and in which nothing else is."""
    found = of("github_app_authorization", action="revoked", sender={"id": 21031067, "login": "Codertocat"})
    assert found.event == "github_app_authorization.revoked"
    assert found.accounts == ("user:21031067",)
    assert found.signal
    assert "user:21031067" not in item(github_pull_request()).accounts


@pytest.mark.parametrize(
    ("action", "signal"),
    [
        ("deleted", True),
        ("suspend", True),
        ("unsuspend", True),
        ("new_permissions_accepted", True),
        ("created", False),
    ],
)
def test_what_befalls_an_installation(action: str, signal: bool) -> None:
    """Deleted, suspended and given other permissions: news of a grant. Created: not yet one."""
    found = of("installation", action=action, installation={"id": 2, "account": {"id": 3}}, sender={"id": 4})
    assert found.accounts == ("installation:2", "account:3")
    assert found.signal is signal


def test_other_events_with_such_actions_are_no_signals() -> None:
    """A deleted comment deletes no installation."""
    assert not of("issue_comment", action="deleted").signal
    assert not of("installation_repositories", action="removed", installation={"id": 2}).signal


@PROPERTY
@given(st.text(max_size=30))
def test_any_action_gives_a_name(action: str) -> None:
    """Names are safe in a type filter, whatever GitHub invents."""
    try:
        assert of("issues", action=action).event.startswith("issues")
    except Refused:
        pytest.fail("refused for its action")
