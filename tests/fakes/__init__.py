"""Others' services, played over real HTTP: a provider that behaves or misbehaves, and a browser for its pages."""

from __future__ import annotations

from tests.fakes.browser import consent
from tests.fakes.provider import CALLBACK, FakeProvider, fake_provider

__all__ = ["CALLBACK", "FakeProvider", "consent", "fake_provider"]
