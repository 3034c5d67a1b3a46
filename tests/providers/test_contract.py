"""What every provider has to hold, asked of every signer there is: a new provider is tested by adding its signer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Delivery, Trust
from providers.errors import Refused, TimestampOutOfRange
from providers.registry import Provider, all_providers
from tests.providers.properties import PROPERTY, bodies, content_types, header_values
from tests.signers import SIGNERS
from tests.signing import NOW, URL, Signer, signed, trusting

EVENT_NAME = re.compile(r"[a-z0-9_.-]{1,100}")


@pytest.fixture(params=sorted(SIGNERS))
def signer(request: pytest.FixtureRequest) -> Signer:
    """Each signer in turn."""
    return SIGNERS[request.param]


@pytest.fixture
def provider(signer: Signer) -> Provider:
    """The provider that the signer plays."""
    return all_providers()[signer.provider]


def authenticators(provider: Provider, signer: Signer, delivery: Delivery) -> list[str]:
    """The headers of `delivery` by which the provider is known."""
    named = set(provider.facts.signature_headers) - signer.ignored_headers
    return sorted(named & set(delivery.headers))


def flips(data: bytes) -> Iterator[bytes]:
    """`data` with one bit flipped, for every bit."""
    for index, byte in enumerate(data):
        for bit in range(8):
            yield data[:index] + bytes([byte ^ (1 << bit)]) + data[index + 1 :]


def test_every_provider_has_a_signer() -> None:
    """Without one, nothing below would be asked of it."""
    assert {signer.provider for signer in SIGNERS.values()} == set(all_providers())


def test_what_the_provider_signed_is_accepted(signer: Signer, provider: Provider) -> None:
    """Every sample body, whole: it verifies by the newest secret, and gives items that are slices of it."""
    for body in signer.bodies:
        delivery = signed(signer, body)
        verified = provider.verify(delivery, trusting(signer), NOW)
        assert verified.secret == 0
        found = provider.items(delivery, verified)
        assert found
        for item in found:
            assert item.data in signer.told(delivery.body)
            assert item.data or not delivery.body


def test_one_flipped_bit_anywhere_in_the_body_is_refused(signer: Signer, provider: Provider) -> None:
    """Every bit of an everyday body."""
    if not signer.covers_body:
        pytest.skip("this authenticator does not cover the body")
    delivery, trust = signed(signer), trusting(signer)
    for body in flips(delivery.body):
        with pytest.raises(Refused):
            provider.verify(replace(delivery, body=body), trust, NOW)


def test_one_flipped_bit_anywhere_in_the_signature_is_refused(signer: Signer, provider: Provider) -> None:
    """Every bit of every authenticating header: no second spelling of a signature passes."""
    delivery, trust = signed(signer), trusting(signer)
    for name in authenticators(provider, signer, delivery):
        for value in flips(delivery.headers[name].encode("latin-1")):
            headers = {**delivery.headers, name: value.decode("latin-1")}
            with pytest.raises(Refused):
                provider.verify(replace(delivery, headers=headers), trust, NOW)


def test_another_apps_secret_is_refused(signer: Signer, provider: Provider) -> None:
    """A true signature of the same provider, made for somebody else."""
    with pytest.raises(Refused):
        provider.verify(signed(signer, secret=signer.secrets[2]), trusting(signer), NOW)


def test_a_missing_authenticator_is_refused(signer: Signer, provider: Provider) -> None:
    """Each of them alone, and all headers at once: nothing to check is nothing proved."""
    delivery, trust = signed(signer), trusting(signer)
    for name in authenticators(provider, signer, delivery):
        for headers in ({**delivery.headers, name: ""}, {k: v for k, v in delivery.headers.items() if k != name}):
            with pytest.raises(Refused):
                provider.verify(replace(delivery, headers=headers), trust, NOW)
    if authenticators(provider, signer, delivery):
        with pytest.raises(Refused):
            provider.verify(replace(delivery, headers={}), trust, NOW)


def test_old_and_future_signatures_are_refused(signer: Signer, provider: Provider) -> None:
    """The absolute difference counts, to the second where the provider's rules name one."""
    if not signer.signs_time:
        pytest.skip("this scheme signs no time")
    tolerance = provider.facts.timestamp_tolerance_s
    trust = trusting(signer)
    for sign in (1, -1):
        late = timedelta(seconds=sign * ((tolerance or 24 * 3600) + 1))
        with pytest.raises(Refused) as refused:
            provider.verify(signed(signer, now=NOW - late), trust, NOW)
        if tolerance is not None:
            assert isinstance(refused.value, TimestampOutOfRange)
            assert refused.value.skew_s == late.total_seconds()
            edge = timedelta(seconds=sign * tolerance)
            provider.verify(signed(signer, now=NOW - edge), trust, NOW)


def test_secrets_rotate(signer: Signer, provider: Provider) -> None:
    """The old secret is accepted while it is listed, and the answer says that it was the old one."""
    if signer.keys:
        pytest.skip("its keys are the provider's own")
    new, old, _ = signer.secrets
    both = trusting(signer, new, old)
    assert provider.verify(signed(signer, secret=new), both, NOW).secret == 0
    assert provider.verify(signed(signer, secret=old), both, NOW).secret == 1
    with pytest.raises(Refused):
        provider.verify(signed(signer, secret=old), trusting(signer, new), NOW)


def test_without_a_secret_nothing_is_accepted(signer: Signer, provider: Provider) -> None:
    """No secret, no settings, no keys; and an empty secret, with which anyone can sign."""
    nothing = Trust(secrets=(), endpoint=signer.endpoint)
    with pytest.raises(Refused):
        provider.verify(signed(signer), nothing, NOW)
    if not signer.keys:
        for secret in (b"", b" "):
            with pytest.raises(Refused):
                provider.verify(signed(signer), trusting(signer, secret), NOW)


@PROPERTY
@given(data=st.data())
def test_hostile_headers_are_refused_and_raise_nothing_else(data: st.DataObject) -> None:
    """Whatever an authenticating header holds instead: refused. Whatever any other holds: no other error."""
    signer = SIGNERS[data.draw(st.sampled_from(sorted(SIGNERS)))]
    provider = all_providers()[signer.provider]
    delivery = signed(signer, data.draw(st.sampled_from(signer.bodies)))
    authentic = authenticators(provider, signer, delivery)
    others = sorted(provider.guarded_headers | provider.kept_headers | set(delivery.headers))
    name = data.draw(st.sampled_from(authentic + others))
    value = data.draw(header_values)
    changed = replace(delivery, headers={**delivery.headers, name: value})
    if name in authentic and value != delivery.headers[name]:
        with pytest.raises(Refused):
            provider.verify(changed, trusting(signer), NOW)
        return
    with suppress(Refused):
        verified = provider.verify(changed, trusting(signer), NOW)
        provider.items(changed, verified)


@PROPERTY
@given(name=st.sampled_from(sorted(SIGNERS)), body=bodies, content_type=content_types)
def test_any_signed_body_gives_items_or_is_refused(name: str, body: bytes, content_type: str | None) -> None:
    """What is truly signed may still be nonsense: a clear refusal, or items that the database can hold."""
    signer = SIGNERS[name]
    provider = all_providers()[signer.provider]
    headers = {} if content_type is None else {"content-type": content_type}
    try:
        delivery = signed(signer, body, headers=headers)
    except ValueError:
        return  # a signer that puts its authenticator into the body cannot do so with this one
    try:
        verified = provider.verify(delivery, trusting(signer), NOW)
        if provider.challenge:
            provider.challenge(delivery, trusting(signer))
        found = provider.items(delivery, verified)
    except Refused:
        return
    assert found
    for item in found:
        assert item.data in signer.told(delivery.body)
        assert EVENT_NAME.fullmatch(item.event)
        for key in (*item.accounts, "-" if item.dedupe is None else item.dedupe, item.content_type):
            assert key.encode()
            assert "\x00" not in key
        if provider.redact:
            assert len(provider.redact(item.data)) == len(item.data)


def test_redacting_keeps_the_length_and_hides_the_secret(signer: Signer, provider: Provider) -> None:
    """An authenticator in the body is not stored; redacting twice changes nothing more."""
    for body in signer.bodies:
        delivery = signed(signer, body)
        for item in provider.items(delivery, provider.verify(delivery, trusting(signer), NOW)):
            redacted = provider.redact(item.data) if provider.redact else item.data
            assert len(redacted) == len(item.data)
            assert signer.secrets[0] not in redacted
            if provider.redact:
                assert provider.redact(redacted) == redacted


def test_no_secret_is_in_anything_that_is_printed(signer: Signer, provider: Provider) -> None:
    """Neither in what verifiers are given, nor in what they say, nor in what a refusal says."""
    delivery = signed(signer)
    shown = [repr(trusting(signer)), repr(provider.verify(delivery, trusting(signer), NOW)), repr(signer)]
    for trust in (trusting(signer, signer.secrets[2]), Trust(secrets=(), endpoint=signer.endpoint)):
        with suppress(Refused):
            provider.verify(delivery, trust, NOW)
    for bad in (replace(delivery, headers={}), replace(delivery, body=delivery.body + b"}")):
        try:
            provider.verify(bad, trusting(signer), NOW)
        except Refused as refused:
            shown += [repr(refused), str(refused), refused.detail]
    for secret in signer.secrets:
        assert not [text for text in shown if secret.decode("latin-1") in text]


def test_secrets_of_the_right_form_raise_no_complaint(signer: Signer, provider: Provider) -> None:
    """And a complaint about a bad one is one line that does not quote it."""
    if provider.check_secret is None or signer.keys:
        return
    for secret in signer.secrets:
        assert provider.check_secret(secret) is None
        spoilt = b" " + secret + b"\n"
        said = provider.check_secret(spoilt)
        assert said
        assert "\n" not in said
        assert secret.decode("latin-1") not in said
    assert provider.check_secret(b"")


@pytest.mark.parametrize("name", sorted(all_providers()))
def test_facts_are_sane(name: str) -> None:
    """Numbers in their ranges, header names lower case, sources that are links."""
    facts = all_providers()[name].facts
    assert facts.title
    assert facts.docs_url.startswith("https://")
    for header in (*facts.signature_headers, *facts.identity_headers, *facts.kept_headers):
        assert header == header.lower().strip()
    assert facts.timestamp_tolerance_s is None or 0 < facts.timestamp_tolerance_s <= 3600
    assert 72 * 3600 <= facts.dedupe_window_s <= 31 * 24 * 3600
    assert 0 < facts.ack_deadline_s <= 60
    assert 200 <= facts.ack_status < 300
    # 410 would end a subscription, and a 2xx would acknowledge a forgery.
    assert 400 <= facts.refused_status < 500
    assert facts.refused_status != 410
    for tells in facts.signals:
        assert EVENT_NAME.fullmatch(tells.event)
        assert tells.source.startswith("https://")
    assert 0 < facts.clock_margin_s <= 600
    assert facts.keys_url is None or facts.keys_url.startswith("https://")


def test_one_service_down_is_the_condition_of_its_own_integrations_only() -> None:
    """Where each integration names its own server, the trouble of one says nothing of the others."""
    apart = {name for name, of in all_providers().items() if not of.facts.one_service}
    assert apart >= {"generic-oauth2", "gitlab", "standard-webhooks", "sandbox"}
    assert not apart & {"google", "slack", "github", "microsoft", "stripe", "hubspot"}


def test_only_who_looks_tokens_up_acquits_a_grant_by_a_probe() -> None:
    """Sources are in the modules; whoever has none is not believed."""
    acquits = {name for name, of in all_providers().items() if of.oauth is not None and of.oauth.probe_acquits}
    assert acquits >= {"slack", "github", "gitlab", "stripe", "sandbox"}
    assert not acquits & {"microsoft", "google", "hubspot", "generic-oauth2"}


@pytest.mark.parametrize("name", sorted(all_providers()))
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_a_bare_request_is_refused(name: str, method: str) -> None:
    """A scanner's visit: no headers, no body, a query of noise."""
    provider = all_providers()[name]
    delivery = Delivery(method=method, url=URL + "?a=%ff", path="/hooks/int_1", query="a=%ff", headers={}, body=b"")
    for endpoint in (False, True):
        with pytest.raises(Refused):
            provider.verify(delivery, Trust(secrets=(b"s" * 32,), endpoint=endpoint), NOW)
