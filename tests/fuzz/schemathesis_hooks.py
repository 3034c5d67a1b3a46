"""Loaded by schemathesis: most requests name things that exist, which random ids never would.

What exists comes in the environment (`KNOWN`, JSON). What is put where is chosen by the request's own content, so that
hypothesis finds a case again.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

import schemathesis

KNOWN: dict[str, Any] = json.loads(os.environ.get("KNOWN", "{}"))
GET_BY = {"tenant": "tenant_id", "connection": "connection_id", "integration": "integration"}  # parameters of a query


def _number(value: Any) -> int:
    return zlib.crc32(repr(value).encode())


def _one_of(known: list[Any], value: Any) -> Any:
    """A known one in three cases of four, else what was generated."""
    number = _number(value)
    return value if number % 4 == 0 else known[number // 4 % len(known)]


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ids of what is there. Of keys no others: schemathesis learns ids from answers, and would revoke its own."""
    if path_parameters and "key_id" in path_parameters:
        keys = [*KNOWN["key_id"], "key_" + "0" * 32]
        return {"key_id": keys[_number(path_parameters) % len(keys)]}
    return path_parameters and {k: _one_of(KNOWN[k], v) if k in KNOWN else v for k, v in path_parameters.items()}


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Filters that match something, and cursors of this log."""
    if not query:
        return query
    mapped = {k: _one_of(KNOWN[GET_BY[k]], v) if k in GET_BY else v for k, v in query.items()}
    if "after" in mapped:
        mapped["after"] = _one_of(KNOWN["cursor"], mapped["after"])
    if "wait_s" in mapped:
        mapped["wait_s"] = 0
    return mapped


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Bodies that mean something here: known tenants and accounts, a provider's kind of secret, live leases."""
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    mapped = {k: _one_of(KNOWN[GET_BY[k]], v) if k in GET_BY else v for k, v in body.items()}
    if path == "/v1/endpoints" and _number(body) % 3:
        mapped = {k: v for k, v in mapped.items() if k not in ("secret", "connection")}
    if path == "/v1/integrations" and _number(body) % 3:
        mapped = {
            "name": f"made-{_number(body)}",
            "provider": "github",
            "signing_secrets": ["a secret of decent length"],
        }
    if path == "/v1/integrations/{integration}" and _number(body) % 3:
        mapped.pop("settings", None)
        mapped.pop("region", None)
    if path.endswith("/secrets") and _number(body) % 3:
        mapped["secret"] = f"a secret of decent length {_number(body)}"
    if path.endswith("/commit") and _number(body) % 3:
        mapped["partitions"] = KNOWN["leased"][: 1 + _number(body) % 5]
    if path == "/v1/keys" and _number(body) % 3:
        mapped = {"name": "made", "role": "consumer"}
    return mapped
