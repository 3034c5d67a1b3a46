"""Published test vectors, one JSON file a provider, each with its source. Copied once, never fetched."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.contract import Delivery

HERE = Path(__file__).parent


def load(name: str) -> dict[str, Any]:
    """The file of provider `name`."""
    read: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    return read


def delivery(vector: dict[str, Any]) -> Delivery:
    """The request that a vector describes."""
    url = vector.get("url", "https://hooks.example.com/hooks/int_1")
    parts = urlsplit(url)
    return Delivery(
        method=vector.get("method", "POST"),
        url=url,
        path=parts.path,
        query=parts.query,
        headers=vector["headers"],
        body=vector["body"].encode(),
    )


def now(vector: dict[str, Any]) -> datetime:
    """The time to which a vector pins the clock; any, where none is signed."""
    return datetime.fromtimestamp(vector.get("now", 1_795_435_200), UTC)
