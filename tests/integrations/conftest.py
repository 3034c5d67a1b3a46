"""Made-up providers: each shows one thing that declaring an integration depends on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from providers.contract import Delivery, Facts, Item, Trust, Verified
from providers.registry import Provider, load


class Settings(BaseModel):
    """What an integration of `posty` must and may say."""

    model_config = ConfigDict(extra="forbid")
    audience: str
    depth: int = 1
    share: float = 0.5


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    return Verified("none")


def items(delivery: Delivery, verified: Verified) -> list[Item]:
    return []


def check_secret(secret: bytes) -> str | None:
    return None if len(secret) >= 4 else "is shorter than 4 bytes"


def made(name: str, **more: Any) -> Provider:
    """A provider module of this name."""
    module = ModuleType(name)
    facts = Facts(name=name, title=name.title(), docs_url="", **more)
    vars(module).update(FACTS=facts, verify=verify, items=items, check_secret=check_secret)
    if name == "posty":
        vars(module)["Settings"] = Settings
    return load(module)


PROVIDERS: Mapping[str, Provider] = {
    "plain": made("plain"),
    "posty": made("posty"),
    "clienty": made("clienty", signs_with="client_secrets"),
}


@pytest.fixture
def providers() -> Mapping[str, Provider]:
    return PROVIDERS
