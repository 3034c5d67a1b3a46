"""`{vault = "mount/path#field"}`: a secret of ours that lies in the KV engine (version 1 or 2) of Vault / OpenBao."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from gateway.vault.openbao import OpenBao, Refused

SHAPE = re.compile(r"([^#\s]+)#([^#]+)")
HOW = 'must be like {vault = "mount/path#field"}'


async def read(bao: OpenBao, references: Sequence[str]) -> dict[str, bytes | str]:
    """Of each reference the secret (bytes), or what is wrong with it (str): the end of a sentence, without a secret.

    Raises: Unavailable: nobody can be asked just now.
    """
    found: dict[str, bytes | str] = {}
    secrets: dict[str, Mapping[str, Any] | str] = {}  # by path, as several fields of one secret are asked for
    for reference in references:
        shape = SHAPE.fullmatch(reference)
        if shape is None or not shape[1].isprintable() or {"", ".", ".."} & set(shape[1].split("/")):
            found[reference] = HOW  # not repeated: someone may have put the secret itself there
            continue
        path, name = shape[1], shape[2]
        if path not in secrets:
            secrets[path] = await _secret(bao, path)
        secret = secrets[path]
        value = secret if isinstance(secret, str) else secret.get(name)
        if isinstance(secret, str):
            found[reference] = f"names {path} in Vault, {secret}"
        elif not isinstance(value, str) or not value:
            what = "which has no such field" if value is None else "whose field is not a text, or empty"
            found[reference] = f"names {path} in Vault, {what} ({name if name.isprintable() else '?'})"
        else:
            found[reference] = value.encode("utf-8", "surrogatepass")
    return found


async def _secret(bao: OpenBao, path: str) -> Mapping[str, Any] | str:
    """The fields of a secret, or what is wrong. The server says what part of the path is the mount, and its version.

    Source: https://openbao.org/api-docs/system/internal-ui-mounts/ , as its own command line asks.
    """
    asked = quote(path)
    try:
        mount = _data((await bao.call("lookup", "GET", f"sys/internal/ui/mounts/{asked}")).body)
        engine = str(mount.get("path", "")).strip("/")
        if mount.get("type") not in ("kv", "generic") or not path.startswith(engine + "/"):
            return "which is not in a KV engine"
        two = (mount.get("options") or {}).get("version") == "2"
        rest = quote(path[len(engine) + 1 :])
        answer = await bao.call("read", "GET", f"{quote(engine)}/{'data/' if two else ''}{rest}", takes=(404,))
    except Refused as error:
        return "which our policy does not let us read" if error.status == 403 else "which it refuses to give"
    fields = _data(answer.body)
    fields = _data(fields) if two else fields
    if answer.status == 404 or not fields:
        return "which is not there"
    return fields


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data")
    return data if isinstance(data, dict) else {}
