"""Whatever is sent, the answer is a problem object with a status under 500, and never a traceback."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.web.requests import MOST_BODY_BYTES
from tests.web.conftest import Api, problem

TENANT = "/v1/tenants/acme"


ODD_REQUESTS = [
    ("GET", "/", 404, "not_found"),
    ("GET", "/v1/tenants/", 404, "not_found"),
    ("GET", "/v1/tenants/a/b", 404, "not_found"),
    ("GET", "/hooks/github", 404, "not_found"),
    ("POST", TENANT, 405, "method_not_allowed"),
    ("OPTIONS", TENANT, 405, "method_not_allowed"),
    ("REPORT", TENANT, 405, "method_not_allowed"),
    ("HEAD", "/v1/events/stream", 405, "method_not_allowed"),
    ("GET", "/v1/connections/conn_1", 404, "not_found"),
    ("GET", "/v1/connections/key_" + "0" * 32, 404, "not_found"),
    ("GET", "/v1/connections/conn_" + "0" * 32, 404, "not_found"),
    ("DELETE", "/v1/endpoints/hook_" + "0" * 32, 404, "not_found"),
    ("DELETE", "/v1/keys/key_" + "0" * 32, 404, "not_found"),
    ("GET", "/v1/integrations/%C3%A9", 404, "not_found"),
    ("GET", "/v1/tenants?limit=0", 422, "invalid"),
    ("GET", "/v1/tenants?limit=1_0", 422, "invalid"),
    ("GET", "/v1/tenants?limit=" + "9" * 5000, 422, "invalid"),
    ("GET", "/v1/tenants?limit=1&limit=2", 422, "invalid"),
    ("GET", "/v1/tenants?colour=red", 422, "invalid"),
    ("GET", "/v1/tenants?cursor=%00", 422, "invalid"),
    ("GET", "/v1/tenants?cursor=%FF", 422, "invalid"),
    ("GET", "/v1/connections?tenant=%00", 422, "invalid"),
    ("GET", "/v1/connections?state=happy", 422, "invalid"),
    ("GET", "/v1/refusals?integration=none", 422, "invalid"),
]


async def test_requests_that_fit_no_route_or_query(api: Api) -> None:
    """404, 405 and 422 are problems like all others."""
    for method, path, status, code in ODD_REQUESTS:
        answer = await api(method, path)
        if method == "HEAD":
            assert (answer.status_code, answer.content) == (status, b"")
        else:
            problem(answer, status, code)
        if status == 405:
            assert "GET" in answer.headers["allow"]


ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"labels": {"a": "\xff"}}',
    b'{"labels": {"a": "\\ud800"}}',
    b'{"labels": {"a": "\\u0000"}}',
    b'{"labels": {"a\\u0000": "b"}}',
    b'{"labels": ' + b"[" * 100_000,
    b'{"labels": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    b'{"labels": {"a": 1}}',
    b'{"labels": {"a": NaN}}',
    b'{"colour": "red"}',
    b'{"region": 1' + b"0" * 5000 + b"}",
    b"\xef\xbb\xbf{}",
]


async def test_bodies_that_are_no_json_of_ours(api: Api) -> None:
    """Broken, deep, huge-numbered or NUL-bearing JSON is a 422."""
    for body in ODD_BODIES:
        problem(await api("PUT", TENANT, content=body, headers={"content-type": "application/json"}), 422, "invalid")


async def test_an_escaped_backslash_before_u0000_is_text(api: Api) -> None:
    """Only a real NUL is refused."""
    body = b'{"labels": {"a": "\\\\u0000"}}'
    answer = await api("PUT", TENANT, content=body, headers={"content-type": "application/json; charset=UTF-8"})
    assert answer.json()["labels"] == {"a": "\\u0000"}


async def test_other_media_are_refused(api: Api) -> None:
    """Only uncompressed JSON in UTF-8."""
    for headers in (
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {},
    ):
        problem(await api("PUT", TENANT, content=b"{}", headers=headers), 415, "unsupported_media_type")


async def test_a_body_over_the_limit_is_413_whether_announced_or_not(api: Api) -> None:
    """The limit holds while reading, so a body without a length meets it too."""

    async def endless() -> Any:
        for _ in range(MOST_BODY_BYTES // 65536 + 2):
            yield b" " * 65536

    json = {"content-type": "application/json"}
    problem(await api("PUT", TENANT, content=b" " * (MOST_BODY_BYTES + 1), headers=json), 413, "too_large")
    problem(await api("PUT", TENANT, content=endless(), headers=json), 413, "too_large")


async def test_a_body_where_none_is_taken_is_refused(api: Api) -> None:
    """Whoever sends one means something by it."""
    problem(await api("DELETE", "/v1/keys/key_" + "0" * 32, content=b"{}"), 422, "invalid")


async def test_errors_name_places_and_never_quote_values(api: Api) -> None:
    """What was sent may be a secret in the wrong place."""
    hidden = "hunter2-hunter2"
    answer = await api("POST", "/v1/keys", {"name": {"x": hidden}, "role": hidden, "more": hidden})
    said = problem(answer, 422, "invalid")
    assert {error["where"] for error in said["errors"]} == {"body.name", "body.role", "body.more"}
    assert hidden not in answer.text
    assert hidden not in (await api("GET", "/v1/events", params={"limit": hidden})).text


async def test_who_asks_is_asked_first(api: Api) -> None:
    """No key, a wrong one, two, or a malformed header: nothing else is said."""
    for key in (None, "ph_abcdefgh_" + "A" * 43, "x", "Bearer"):
        answer = await api("PUT", TENANT, content=b"{", key=key)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    basic = await api("GET", TENANT, headers={"authorization": "Basic YTpi"}, key=None)
    problem(basic, 401, "unauthenticated")
    twice = await api.http.get(TENANT, headers=[("authorization", f"Bearer {api.admin}")] * 2)
    problem(twice, 400, "malformed")


async def test_a_role_allows_what_it_lists_and_nothing_else(api: Api) -> None:
    """A reader reads connections, and neither keys nor anything that writes."""
    reader = await api.key("reader")
    assert (await api("GET", "/v1/connections", key=reader)).status_code == 200
    problem(await api("GET", "/v1/keys", key=reader), 403, "forbidden")
    problem(await api("POST", "/v1/connections", {}, key=reader), 403, "forbidden")


async def test_request_ids_are_kept_when_plain_and_made_otherwise(api: Api) -> None:
    """Every answer carries one, 404 and 401 too."""
    assert (await api("GET", "/healthz", headers={"x-request-id": "abc-1.2_3"})).headers["x-request-id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 101, "<script>", "é"):
        made = (await api("GET", "/nowhere", headers={"x-request-id": odd.encode()})).headers["x-request-id"]
        assert made.startswith("req_")
    assert (await api("GET", TENANT, key=None)).headers["x-request-id"].startswith("req_")


async def test_head_is_get_without_the_body(api: Api) -> None:
    """Same status, same headers."""
    await api("PUT", TENANT, {})
    whole, head = await api("GET", TENANT), await api("HEAD", TENANT)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(api: Api) -> None:
    """Nobody is there to answer, and the next request is served."""
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT {TENANT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {api.admin}\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await api("GET", "/healthz")).status_code == 200
