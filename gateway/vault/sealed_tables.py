"""The tables whose rows are sealed under data keys, as a rotation of those sees them: one entry a table.

`READ` gives rows under the data keys in ($1, $2), behind ($3, $4) within the first of them, at most $5; `write` puts
newly sealed ones in their place where the row is still the one that was read. A table that is not here keeps its old
data keys alive (nothing is lost), and its foreign key to `data_keys` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.vault.tokens import Place, Purpose, closing_place, staged_place

# Each data key's rows in the order of the index, from where the last batch ended in the first of them: so a batch costs
# what it returns, whether a tenant has one row or a million. There is no ORDER BY around it, which would read them all;
# a nested loop keeps the order, and what another plan left out the next round would find.
READ = """
SELECT o.tenant_id, o.version AS data_key_version, r.* FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS o(tenant_id, version, nth)
 CROSS JOIN LATERAL (
   SELECT {id} AS id, access_profile, {generation} AS generation, {version} AS token_version, {first} AS first, {second} AS second
     FROM gateway.{table} t
    WHERE t.tenant_id = o.tenant_id AND t.data_key_version = o.version AND {first} IS NOT NULL
      AND ({id}, access_profile) > (CASE WHEN o.nth = 1 THEN $3 ELSE '00000000-0000-0000-0000-000000000000'::uuid END,
                                    CASE WHEN o.nth = 1 THEN $4 ELSE '' END)
    ORDER BY {id}, access_profile LIMIT $5) AS r LIMIT $5"""
NEW = """unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::bytea[], $8::bytea[], $9::bytea[])
         AS n(id, access_profile, generation, token_version, old_key, new_key, old, first, second)"""


@dataclass(frozen=True, slots=True)
class SealedTable:
    """One of them."""

    name: str
    count: str  # how many rows are under data keys that are older than $1
    read: str
    write: str
    purposes: tuple[Purpose, ...]  # of its one or two sealed columns
    place: Callable[[str, Any], Place]  # of a row of `read`, in a region


def _count(table: str, sealed: str) -> str:
    return f"""SELECT count(*) FROM gateway.{table} t JOIN gateway.data_keys d ON d.tenant_id = t.tenant_id AND d.version = t.data_key_version
                WHERE d.created_at < $1 AND t.{sealed} IS NOT NULL"""  # noqa: S608 - names of this file


TOKENS = SealedTable(
    name="tokens",
    count=_count("tokens", "sealed_access"),
    read=READ.format(
        table="tokens", id="connection_id", generation="generation", version="token_version", first="sealed_access",
        second="sealed_refresh",
    ),
    write=f"""UPDATE gateway.tokens t SET data_key_version = n.new_key, sealed_access = n.first, sealed_refresh = n.second FROM {NEW}
               WHERE t.connection_id = n.id AND t.access_profile = n.access_profile AND t.generation = n.generation
                 AND t.token_version = n.token_version AND t.data_key_version = n.old_key AND t.sealed_access = n.old""",  # noqa: S608
    purposes=("access_token", "refresh_token"),
    place=lambda region, row: Place(
        region, row["tenant_id"], row["id"], row["access_profile"], row["generation"], row["token_version"]
    ),
)  # fmt: skip
STAGED = SealedTable(
    name="staged_tokens",
    count=_count("staged_tokens", "sealed"),
    read=READ.format(
        table="staged_tokens", id="session_id", generation="0", version="0", first="sealed", second="NULL::bytea"
    ),
    write=f"""UPDATE gateway.staged_tokens t SET data_key_version = n.new_key, sealed = n.first FROM {NEW}
               WHERE t.session_id = n.id AND t.access_profile = n.access_profile AND t.data_key_version = n.old_key
                 AND t.sealed = n.old""",  # noqa: S608
    purposes=("staged",),
    place=lambda region, row: staged_place(region, row["tenant_id"], row["id"], row["access_profile"]),
)
CLOSING = SealedTable(
    name="closing_tasks",
    count=_count("closing_tasks", "sealed"),
    read=READ.format(table="closing_tasks", id="id", generation="0", version="0", first="sealed", second="NULL::bytea"),
    write=f"""UPDATE gateway.closing_tasks t SET data_key_version = n.new_key, sealed = n.first FROM {NEW}
               WHERE t.id = n.id AND t.data_key_version = n.old_key AND t.sealed = n.old""",  # noqa: S608
    purposes=("closing",),
    place=lambda region, row: closing_place(region, row["tenant_id"], row["id"], row["access_profile"]),
)
# KV mode: what lies in the row is a path (as bytes here), and what it points to is sealed. To seal it anew is to write
# another blob and to point to that.
BLOBS = SealedTable(
    name="tokens in KV",
    count=_count("tokens", "kv_path"),
    read=READ.format(
        table="tokens", id="connection_id", generation="generation", version="token_version",
        first="convert_to(kv_path, 'UTF8')", second="NULL::bytea",
    ),
    write=f"""UPDATE gateway.tokens t SET data_key_version = n.new_key, kv_path = convert_from(n.first, 'UTF8') FROM {NEW}
               WHERE t.connection_id = n.id AND t.access_profile = n.access_profile AND t.generation = n.generation
                 AND t.token_version = n.token_version AND t.data_key_version = n.old_key
                 AND t.kv_path = convert_from(n.old, 'UTF8')""",  # noqa: S608
    purposes=(),
    place=TOKENS.place,
)  # fmt: skip

ALL = (TOKENS, STAGED, CLOSING)
