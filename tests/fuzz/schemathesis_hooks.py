"""Loaded by schemathesis: most requests name things that exist, which random ids never would.

What exists comes in the environment (`KNOWN`, JSON). Of every four requests to an operation, the first is wholly about
things that are there, and each of the others leaves one part (path, query, body) as it was generated: chance decides
nothing about whether an operation can succeed in a short run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any, Literal

import schemathesis

Part = Literal["path", "query", "body"]
KNOWN: dict[str, Any] = json.loads(os.environ.get("KNOWN", "{}"))
RECIPIENT = (
    "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"  # a public key: https://www.rfc-editor.org/rfc/rfc7748 section 6.1
)
# Parameters of a query, and fields of a body.
GET_BY = {
    "tenant": "tenant_id",
    "connection": "connection_id",
    "integration": "integration",
    "access_profile": "access_profile",
}
LEFT_ALONE: dict[Part, int] = {"path": 1, "query": 2, "body": 3}  # in which of four requests

_asked: Counter[tuple[str, Part]] = Counter()


def _turn(context: Any, part: Part) -> int:
    """How often this part of this operation was asked for before."""
    place = (context.operation.label, part)
    _asked[place] += 1
    return _asked[place] - 1


def _generated(part: Part, turn: int) -> bool:
    return turn % 4 == LEFT_ALONE[part]


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ids of what is there. What destroys has a third of them for itself, else nothing would be left to ask for."""
    if not path_parameters:
        return path_parameters
    turn = _turn(context, "path")
    path, destroys = context.operation.path, context.operation.method.upper() == "DELETE"
    mapped = dict(path_parameters)
    for name in path_parameters.keys() & KNOWN.keys():
        known = KNOWN["provider"] if path.startswith("/v1/providers/") else KNOWN[name]
        third = len(known) // 3
        known = known[:third] if destroys and path.endswith("}") else known[third:]
        if path.endswith("/commit"):
            mapped[name] = KNOWN["leases"]
        elif not _generated("path", turn):
            mapped[name] = known[turn % len(known)]
        elif name == "key_id":  # no others: schemathesis learns ids from answers, and would revoke its own key
            mapped[name] = "key_" + "0" * 32
    return mapped


@schemathesis.hook
def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
    """Filters that match something, and cursors of this log."""
    if not query:
        return query
    turn = _turn(context, "query")
    mapped = _named(query, "query", turn)
    if "after" in mapped and not _generated("query", turn):
        mapped["after"] = KNOWN["cursor"][turn % len(KNOWN["cursor"])]
    if "wait_s" in mapped:
        mapped["wait_s"] = 0
    return mapped


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Bodies that mean something here: known tenants and accounts, a provider's kind of secret, live leases."""
    if not isinstance(body, dict):
        return body
    turn = _turn(context, "body")
    if _generated("body", turn):
        return body
    mapped, path = _named(body, "body", turn), context.operation.path
    if path == "/v1/endpoints":
        mapped = {k: v for k, v in mapped.items() if k not in ("secret", "connection")}
    elif path == "/v1/integrations":
        mapped = {"name": f"made-{turn}", "provider": "github", "signing_secrets": ["a secret of decent length"]}
    elif path == "/v1/integrations/{integration}":
        mapped = {k: v for k, v in mapped.items() if k not in ("settings", "region")}
    elif path.endswith("/secrets"):
        mapped["secret"] = f"a secret of decent length {turn}"
    elif path.endswith("/commit"):
        mapped["partitions"] = KNOWN["leased"][: 1 + turn % 5]
    elif path in ("/v1/connections/activate", "/v1/connections/hold"):
        mapped = {"tenant": KNOWN["tenant_id"][turn % len(KNOWN["tenant_id"])]}
    elif path == "/v1/connections/export":
        mapped["recipient"] = RECIPIENT
    elif path == "/v1/connect/sessions":
        mapped = {"tenant": KNOWN["tenant_id"][turn % 3], "integration": "sandbox", "access_profiles": ["reader"]}
    elif path.endswith("/complete"):
        mapped = {"code": KNOWN["code"]}
    elif path.endswith("/signals"):
        mapped = {**mapped, "access_profile": "reader", "token_version": 1}
    elif path == "/v1/keys":
        mapped = {"name": "made", "role": "consumer"}
    return mapped


def _named(values: dict[str, Any], part: Part, turn: int) -> dict[str, Any]:
    if _generated(part, turn):
        return dict(values)
    return {k: KNOWN[GET_BY[k]][turn % len(KNOWN[GET_BY[k]])] if k in GET_BY else v for k, v in values.items()}
