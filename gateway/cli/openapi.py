"""`posthouse openapi`: the management API's description, without a running gateway."""

from __future__ import annotations


def openapi() -> None:
    """Print the OpenAPI 3.1 document that `/openapi.json` serves."""
    from gateway.cli.output import as_json
    from gateway.web import openapi
    from gateway.web.app import ROUTES
    from subscriptions import api

    as_json(openapi.document([*ROUTES, *api.ROUTES]))
