"""The document is generated from what validates, so it is checked against the standard and against the table."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
from schemathesis.specs.openapi.definitions import OPENAPI_31

from gateway.access import roles
from gateway.web import openapi
from tests.web.conftest import ROUTES, Api


def _document() -> dict[str, Any]:
    return openapi.document(ROUTES)


async def test_it_is_served_to_whoever_reaches_the_listener(api: Api) -> None:
    """No key needed: generators and browsers read it."""
    answer = await api("GET", "/openapi.json", key=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == _document()


def test_it_is_valid_openapi_3_1() -> None:
    """Against the specification's own schema; every component is valid JSON Schema 2020-12."""
    document = _document()
    assert document["openapi"] == "3.1.0"
    errors = [error.message for error in jsonschema_rs.Draft202012Validator(OPENAPI_31).iter_errors(document)]
    assert not errors
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() -> None:
    """Client generators need both."""
    document = _document()
    for target in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', __import__("json").dumps(document)):
        assert target in document["components"]["schemas"]
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names)) == len(ROUTES)


def test_it_says_who_may_and_what_can_go_wrong() -> None:
    """Security, problems with examples, and the Idempotency-Key stand at each operation that has them."""
    document = _document()
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        assert (operation.get("security") == []) == (route.action is None)
        assert "422" in operation["responses"]
        for status, response in operation["responses"].items():
            if int(status) >= 400 and route.path != "/readyz":
                content = response["content"]["application/problem+json"]
                assert all(example["value"]["status"] == int(status) for example in content["examples"].values())
        named = {parameter["name"] for parameter in operation["parameters"]}
        assert ("Idempotency-Key" in named) == route.idempotent
        assert set(re.findall(r"{(\w+)}", route.path)) <= named


def test_every_action_of_a_route_is_one_that_roles_know() -> None:
    """A misspelt action would be the administrator's alone."""
    assert {route.action for route in ROUTES if route.action is not None} <= roles.ACTIONS
