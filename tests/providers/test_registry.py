"""A module that does not keep the contract is named at start, before it has met a delivery."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from providers import github
from providers.contract import Handshake, event_name
from providers.registry import ContractBroken, all_providers, load

QUIET = replace(github.FACTS, signals=())  # tells nothing of grants, so it need not interpret


def module(**members: Any) -> ModuleType:
    """GitHub's module with members replaced; None takes one away."""
    made = ModuleType("providers.made_up")
    known = {"FACTS": QUIET, "verify": github.verify, "items": github.items}
    for name, value in {**known, **members}.items():
        if value is not None:
            setattr(made, name, value)
    return made


def test_a_provider_has_an_ability_by_having_the_function() -> None:
    """And lacks the others, without a word."""
    provider = load(module())
    assert provider.verify is github.verify
    lacking = [provider.challenge, provider.handshake, provider.interpret, provider.redact, provider.check_secret]
    assert lacking == [None] * 5
    assert provider.settings().model_dump() == {}
    assert "x-hub-signature-256" in provider.guarded_headers
    assert provider.kept_headers >= {"x-github-delivery", "x-github-hook-id", "content-type"}
    assert not provider.kept_headers & set(github.FACTS.signature_headers)


@pytest.mark.parametrize(
    "members",
    [
        {"FACTS": None},
        {"FACTS": {"name": "x"}},
        {"verify": None},
        {"items": None},
        {"verify": lambda request, trust, now: None},
        {"redact": lambda body: body},
        {"check_secret": lambda text: None},
        {"handshake": lambda delivery, trust: None},
        {"FACTS": github.FACTS},  # it could tell of grants, and nothing interprets it
        {"interpret": github.interpret},
        {"FACTS": github.FACTS, "interpret": lambda item: []},
        {"FACTS": replace(QUIET, handshake=Handshake(frozenset({"POST"})))},
        {"FACTS": replace(QUIET, dedupe_window_s=3600)},
        {"FACTS": replace(QUIET, kept_headers=("x-hub-signature-256",))},
        {"FACTS": replace(QUIET, identity_headers=("x-hub-signature-256",))},
    ],
)
def test_a_broken_contract_is_named(members: dict[str, Any]) -> None:
    """With the module and what is wrong."""
    with pytest.raises(ContractBroken, match=r"providers\.made_up"):
        load(module(**members))


def test_a_provider_that_tells_of_grants_interprets_what_it_tells() -> None:
    assert load(module(FACTS=github.FACTS, interpret=github.interpret)).interpret is github.interpret


def test_every_module_is_found_under_its_name() -> None:
    """The eight of the foundation, at least."""
    found = all_providers()
    assert {"slack", "github", "stripe", "microsoft", "google", "gitlab", "hubspot", "standard-webhooks"} <= set(found)
    assert all(name == provider.facts.name for name, provider in found.items())


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("pull_request.opened", "pull_request.opened"),
        ("Contact.Creation", "contact.creation"),
        ("a b/c\x00é*", "a_b_c___"),
        ("..a..", "a"),
        ("", "unknown"),
        ("...", "unknown"),
        ("x" * 300, "x" * 100),
        ("İ", "_"),
    ],
)
def test_event_names_are_safe_in_a_filter(raw: str, name: str) -> None:
    """Whatever a provider calls an event, or an attacker with a valid secret."""
    assert event_name(raw) == name
