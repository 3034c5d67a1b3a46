"""What every `interpret` has to hold, asked of every provider that has one, by the table of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Item
from providers.errors import Refused
from providers.registry import all_providers
from providers.signals import Said, Signal, Tells
from tests.providers.properties import PROPERTY, bodies, json_values
from tests.providers.signal_samples import SAMPLES, heard

TELLS = [(name, tells) for name, of in sorted(all_providers().items()) for tells in of.facts.signals]


def keeps_the_contract(item: Item, found: Sequence[Signal], tells: Tells) -> None:
    """Of any item at all, however odd."""
    for signal in found:
        assert signal.says in tells.says
        assert signal.knows in (tells.knows, "nothing")  # a time that cannot be read proves nothing
        assert (signal.at is not None) == (signal.knows == "time")
        assert signal.at is None or signal.at.utcoffset() is not None
        # It means grants of accounts that the item names: of those it lists, or of all of them. Never of "all there are".
        assert item.accounts
        assert set(signal.accounts) <= set(item.accounts)
        assert signal.reason.replace("_", "").isalpha()
        assert signal.reason.islower()


@pytest.mark.parametrize(("name", "tells"), TELLS, ids=[f"{name} {tells.event}" for name, tells in TELLS])
def test_a_sample_says_what_the_table_says(name: str, tells: Tells) -> None:
    """Each line of it has at least one sample, and all that its samples say together is what the line promises."""
    samples = [sample for sample in SAMPLES if (sample.provider, sample.event) == (name, tells.event)]
    assert samples, "no sample: add one to tests/providers/signal_samples.py"
    said = set()
    for sample in samples:
        ((item, found),) = heard(sample)
        assert item.event == tells.event
        keeps_the_contract(item, found, tells)
        assert {signal.knows for signal in found} <= {tells.knows}
        said |= {signal.says for signal in found}
    assert said == set(tells.says)


def test_every_sample_is_of_a_line_of_the_table() -> None:
    """A sample that nothing asks for would prove nothing."""
    lines = {(name, tells.event) for name, tells in TELLS}
    assert {(sample.provider, sample.event) for sample in SAMPLES} <= lines


@PROPERTY
@given(
    line=st.sampled_from(TELLS),
    body=st.one_of(bodies, json_values.map(lambda value: json.dumps(value).encode())),
    content_type=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"]),
)
def test_any_body_gives_signals_or_a_refusal(line: tuple[str, Tells], body: bytes, content_type: str) -> None:
    """No other exception: the follower sets such an item aside by the refusal's plain word."""
    name, tells = line
    interpret = all_providers()[name].interpret
    assert interpret is not None
    with suppress(Refused):
        interpret(Said(event=tells.event, data=body, content_type=content_type, headers={}))


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """`value` with one thing in it replaced by another, or taken away."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(json_values)
    keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    changed = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    if draw(st.integers(0, 4)) == 0:
        del changed[key]
    else:
        changed[key] = draw(spoilt(value[key]))
    return list(changed.values()) if isinstance(value, list) else changed


@PROPERTY
@given(data=st.data())
def test_a_spoilt_sample_keeps_the_contract(data: st.DataObject) -> None:
    """Truly signed, and not quite of the documented shape: it says less, or is refused, and never means everybody."""
    sample = data.draw(st.sampled_from([one for one in SAMPLES if one.body.startswith(b"{")]))
    body = json.dumps(data.draw(spoilt(json.loads(sample.body)))).encode()
    by_event = {tells.event: tells for tells in sample.of.facts.signals}
    try:
        told = heard(sample, body)
    except (Refused, ValueError):  # ValueError: a signer that puts its authenticator into the body, and cannot
        return
    for item, found in told:
        keeps_the_contract(item, found, by_event[item.event])
