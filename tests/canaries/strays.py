"""Secrets where they do not belong: every route is sent them in its path, query, headers and body, and refuses them.

Names are another matter: which field is unknown is said to whoever sent it, and to nobody else.

Made from the table of routes, so a new one is asked too.
"""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.web.routing import Route
from tests.web.conftest import ROUTES, Api

PATH = re.compile(r"\{[a-z_]+\}")


async def stray(api: Api, secrets: dict[str, str]) -> None:
    """Ask every route wrongly. `secrets`: `key`, `query`, `path`, `body`, `name`.

    An answer of 5xx is a fault by itself.
    """
    for route in ROUTES:
        for more in _wrong(route, secrets):
            path = PATH.sub(more.pop("path", "x"), route.path)
            key = more.pop("key", "")
            answer = await api(route.method, path, key=key, **more)
            assert 400 <= answer.status_code < 500, (route.method, route.path, answer.status_code)


def _wrong(route: Route, secrets: dict[str, str]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [{"params": {secrets["name"]: secrets["query"], "limit": secrets["query"]}}]
    if route.action is not None:
        told.append({"key": secrets["key"]})
        told.append({"headers": {"authorization": f"Basic {secrets['key']}"}})
    if route.body is None:
        if PATH.search(route.path) and not route.path.startswith("/v1/consumers"):
            told.append({"path": secrets["path"]})
        return told
    odd = [secrets["body"], {secrets["name"]: [secrets["body"]]}]
    bodies: list[Any] = [{}, odd]
    unknown = {secrets["name"]: secrets["body"]}  # so that none of these is ever taken
    bodies += [{name: value, **unknown} for name in route.body.model_fields for value in odd]
    bodies += [{name: [value] for name in route.body.model_fields} | unknown for value in odd]
    raw = [*map(json.dumps, bodies), '{"broken": "' + secrets["body"], secrets["body"]]
    json_type = {"content-type": "application/json"}
    told += [{"content": text.encode(), "headers": json_type, "path": secrets["path"]} for text in raw[1:]]
    return [*told, {"content": raw[0].encode(), "headers": {"content-type": secrets["body"]}}]
