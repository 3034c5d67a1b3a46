"""The columns that hold what comes of secrets: each with what it is, looked at; every other column is searched.

A column of bytes that is in neither table here fails the test: whoever adds one says what it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import asyncpg

from gateway.vault.cipher import FORMAT, HEADER, NONCE_BYTES, TAG_BYTES
from tests.canaries.search import Find, search

CIPHERTEXT = {
    "control.integration_secrets.sealed": "client and signing secrets, under the control keyring",
    "control.idempotency_keys.sealed_answer": "an answer may show a key or a secret",
    "gateway.hook_endpoints.sealed_secrets": "secrets of hook endpoints, under the region's keyring",
    "gateway.data_keys.wrapped": "data keys, under the region's key",
    "gateway.tokens.sealed_access": "access tokens, under the tenant's data key",
    "gateway.tokens.sealed_refresh": "refresh tokens, the same",
    "gateway.connect_sessions.sealed_verifier": "PKCE verifier and nonce, under the region's keyring",
    "gateway.staged_tokens.sealed": "tokens that wait for `complete`, under the tenant's data key",
    "gateway.closing_tasks.sealed": "tokens that wait for their revocation, the same",
}
KEYED = {
    "control.keyring_checks.proof": "which keyring this is",
    "control.integration_secrets.fingerprint": "whether a declared secret is there already",
    "control.api_keys.hash": "API keys",
    "control.idempotency_keys.key_hash": "the caller's Idempotency-Key",
    "control.idempotency_keys.request_hash": "the request, which may hold a secret",
    "gateway.grants.source_mac": "the token set that was imported",
    "gateway.connect_sessions.link_hash": "link tokens",
    "gateway.connect_sessions.browser_hash": "browser cookies",
    "gateway.connect_sessions.state_hash": "`state`",
    "gateway.connect_sessions.code_hash": "completion codes",
}
SEALED = frozenset({*CIPHERTEXT, *KEYED})
# Bytes that are no secret's: searched like any text.
OPEN = {"gateway.events.data", "gateway.consumer_partitions.cursor_mark", "gateway.refusals.digest"}
FILLED = SEALED - {"gateway.staged_tokens.sealed"}  # emptied when a session completes


async def wrong(dsn: str, canaries: Mapping[str, str | bytes]) -> list[str]:
    """What does not hold of the sealed columns: that they are there, were filled, and can be read by nobody."""
    db = await asyncpg.connect(dsn)
    try:
        found: list[str] = []
        types = await db.fetch(
            "SELECT table_schema || '.' || table_name || '.' || column_name AS name FROM information_schema.columns"
            " WHERE table_schema IN ('gateway', 'control') AND (data_type = 'bytea' OR udt_name = '_bytea')"
            " AND table_name !~ '^events_'"
        )
        unsaid = {row["name"] for row in types} ^ (SEALED | OPEN)
        found += [f"{name}: is it sealed, or open?" for name in sorted(unsaid)]
        for name in sorted(SEALED & {row["name"] for row in types}):
            schema, table, column = name.split(".")
            rows = await db.fetch(f'SELECT "{column}" AS value FROM "{schema}"."{table}"')  # noqa: S608 - names of this file
            values = [
                bytes(v)
                for row in rows
                if row["value"] is not None
                for v in (row["value"] if isinstance(row["value"], list) else [row["value"]])
            ]
            if not values and name in FILLED:
                found.append(f"{name}: nothing was written there, so nothing was tested")
            found += [f"{name}: {fault}" for fault in _faults(name, values, canaries)]
        return found
    finally:
        await db.close()


def _faults(name: str, values: Iterable[bytes], canaries: Mapping[str, str | bytes]) -> list[str | Find]:
    values = list(values)
    faults: list[str | Find] = [*search(canaries, ((name, value) for value in values))]
    if name in CIPHERTEXT:
        least = HEADER.size + NONCE_BYTES + TAG_BYTES
        if any(len(value) <= least or value[0] != FORMAT for value in values):
            faults.append("no ciphertext of ours")
        nonces = [value[HEADER.size : HEADER.size + NONCE_BYTES] for value in values]
        if len(set(nonces)) != len(nonces):
            faults.append("a nonce came twice")
        return faults
    if any(len(value) != 32 for value in values):
        faults.append("no keyed hash of ours")
    plain = {hashlib.sha256(s.encode() if isinstance(s, str) else s).digest() for s in canaries.values()}
    if plain & set(values):
        faults.append("a hash that needs no key")
    return faults
