"""What is seen of a request from outside of it: metrics by route template, one log line, its ids; never its path or key."""

from __future__ import annotations

import io
import json
from typing import Any

from gateway import metrics
from tests.web.conftest import Api

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def _lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _count(route: str, method: str, status: str) -> float:
    return metrics.REGISTRY.get_sample_value(
        "posthouse_http_requests_total", {"route": route, "method": method, "status": status}
    ) or 0.0  # fmt: skip


async def test_requests_are_counted_by_template(api: Api) -> None:
    """A million tenants are one series; what matches nothing is one more, whatever its path or method."""
    before = _count("/v1/tenants/{tenant_id}", "GET", "404"), _count("unmatched", "other", "404")
    for name in ("a", "b", "c"):
        await api("GET", f"/v1/tenants/{name}")
        await api("REPORT", f"/nowhere/{name}")
    assert (_count("/v1/tenants/{tenant_id}", "GET", "404"), _count("unmatched", "other", "404")) == (
        before[0] + 3,
        before[1] + 3,
    )
    page = await api("GET", "/metrics", key=None)
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'route="/v1/tenants/{tenant_id}"' in page.text
    assert "posthouse_build_info" in page.text


async def test_a_request_leaves_one_line_with_its_ids_and_without_what_it_asked(api: Api, lines: io.BytesIO) -> None:
    """Route template, status, who; the request id and the caller's trace join it to theirs."""
    sent = {"x-request-id": "r-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    await api("GET", "/v1/connections?external_id=hunter2", headers=sent)
    line = next(line for line in _lines(lines) if line.get("request_id") == "r-1")
    assert line | {"at": "", "ms": 0, "key": ""} == {
        "at": "", "level": "info", "event": "http.request", "method": "GET", "route": "/v1/connections", "status": 200,
        "ms": 0, "key": "", "request_id": "r-1", "trace_id": TRACE, "parent_id": "00f067aa0ba902b7",
    }  # fmt: skip
    assert line["key"].startswith("key_")
    for odd in (
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "ff-" + TRACE + "-00f067aa0ba902b7-01",
        "hunter2",
        f"00-{TRACE}-00f067aa0ba902b7-01-x",
    ):
        await api("GET", "/v1/connections", headers={"x-request-id": "r-2", "traceparent": odd})
    assert all("trace_id" not in line for line in _lines(lines) if line.get("request_id") == "r-2")
    written = lines.getvalue().decode()
    assert "hunter2" not in written
    assert api.admin not in written


async def test_a_fault_of_ours_is_a_plain_500_with_the_rest_in_the_log(api: Api, lines: io.BytesIO) -> None:
    """No traceback and no words of the error reach the caller."""
    await api.gateway.control.execute("DROP TABLE control.tenants CASCADE")
    answer = await api("GET", "/v1/tenants/hunter2", headers={"x-request-id": "r-3"})
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "https://posthouse.dev/problems/internal", "title": "Something went wrong on our side", "status": 500,
        "request_id": "r-3",
    }  # fmt: skip
    line = next(line for line in _lines(lines) if line["event"] == "http.failed")
    assert line["error"].startswith("asyncpg.exceptions.UndefinedTableError[42P01]")
    assert any(frame.startswith("gateway.tenants:") for frame in line["frames"])
    assert "hunter2" not in lines.getvalue().decode()
