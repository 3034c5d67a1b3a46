"""The public listener with every provider there is."""

from __future__ import annotations

from tests.flows.conftest import api, gateway, house

__all__ = ["api", "gateway", "house"]
