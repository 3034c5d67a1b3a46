"""Is it alive, may it get traffic, what do its figures say. Open to whoever reaches the private listener.

`/healthz` says only that the process answers: a database that is away is no reason to kill it. `/readyz` is false
while starting, while draining, and while a database is away or its schema is not one that this version runs on.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import generate_latest
from starlette.responses import JSONResponse, Response

from gateway import metrics, migrate
from gateway.errors import SetupError, Unavailable
from gateway.service import Gateway
from gateway.web.routing import Answer, Call, NoQuery, Route
from gateway.web.upstream import dependencies

METRICS_MEDIA = "text/plain; version=0.0.4; charset=utf-8"
ASK_S = 1.0


class Alive(Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Answer):
    """Whether traffic may come, and if not, why."""

    ready: bool
    state: Literal["starting", "ready", "draining"]
    dependencies: dict[str, bool]
    schema_fits: bool


async def healthz(gateway: Gateway, call: Call[None, NoQuery]) -> Alive:
    return Alive()


async def readyz(gateway: Gateway, call: Call[None, NoQuery]) -> Response:
    up = await dependencies(gateway, ASK_S) if gateway.state == "ready" else {}
    fits = all(up.values()) and (gateway.state != "ready" or await _schema_fits(gateway))
    ready = gateway.state == "ready" and fits
    said = Readiness(ready=ready, state=gateway.state, dependencies=up, schema_fits=fits)
    return JSONResponse(said.model_dump(), status_code=200 if ready else 503)


async def figures(gateway: Gateway, call: Call[None, NoQuery]) -> Response:
    return Response(generate_latest(metrics.REGISTRY), headers={"content-type": METRICS_MEDIA})


async def _schema_fits(gateway: Gateway) -> bool:
    try:
        migrate.check(await migrate.version(gateway.control, "control"), migrate.HEAD["control"], "control")
        for region in gateway.regions:
            migrate.check(await migrate.version(region.database, "region"), migrate.HEAD["region"], "region")
    except (SetupError, Unavailable):
        return False
    return True


ROUTES = [
    Route("GET", "/healthz", None, healthz, "Does the process live", answer=Alive),
    Route(
        "GET", "/readyz", None, readyz, "May traffic come", answer=Readiness, errors=(Unavailable,),
        description="503 with the same body while it may not: starting, draining, a database away, a schema that does not fit.",
    ),
    Route("GET", "/metrics", None, figures, "Prometheus metrics", media=METRICS_MEDIA.partition(";")[0]),
]  # fmt: skip
