"""Tenants: made and changed by PUT, never moved."""

from __future__ import annotations

from tests.web.conftest import Api, problem


async def test_a_tenant_is_made_and_its_labels_change(api: Api) -> None:
    """PUT says what a tenant is; its region stays where it was."""
    made = await api("PUT", "/v1/tenants/acme", {"labels": {"plan": "gold"}})
    assert made.status_code == 200, made.text
    assert made.json() | {"created_at": 0, "updated_at": 0} == {
        "id": "acme", "region": "default", "labels": {"plan": "gold"}, "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    changed = await api("PUT", "/v1/tenants/acme", {"region": "default", "labels": {}})
    assert changed.json()["labels"] == {}
    assert changed.json()["created_at"] == made.json()["created_at"]
    assert (await api("GET", "/v1/tenants/acme")).json() == changed.json()


async def test_a_tenant_does_not_move(api: Api) -> None:
    """A region is refused when it is another one than the tenant's, or none of ours."""
    await api("PUT", "/v1/tenants/acme", {})
    await api.gateway.control.execute("UPDATE control.tenants SET region = 'eu'")
    problem(await api("PUT", "/v1/tenants/acme", {"region": "default"}), 409, "conflict")
    assert (await api("PUT", "/v1/tenants/acme", {"labels": {"a": "b"}})).json()["region"] == "eu"
    told = problem(await api("PUT", "/v1/tenants/new", {"region": "mars"}), 422, "invalid")
    assert told["errors"][0]["where"] == "body.region"


async def test_ids_that_no_url_could_carry_are_refused(api: Api) -> None:
    """The id stands in paths, so it is plain."""
    problem(await api("PUT", "/v1/tenants/-a", {}), 422, "invalid")
    problem(await api("PUT", "/v1/tenants/a%20b", {}), 422, "invalid")
    problem(await api("PUT", "/v1/tenants/" + "x" * 201, {}), 422, "invalid")
    problem(await api("PUT", "/v1/tenants/a%2Fb", {}), 404, "not_found")
    problem(await api("GET", "/v1/tenants/nobody"), 404, "not_found")
    problem(await api("GET", "/v1/tenants/a%00b"), 422, "invalid")


async def test_pages_follow_each_other_without_gap_or_repeat(api: Api) -> None:
    """limit and next_cursor walk the whole list once."""
    names = sorted(f"t{number}" for number in range(7))
    for name in names:
        await api("PUT", f"/v1/tenants/{name}", {})
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api("GET", "/v1/tenants", params={"limit": 3, **cursor})).json()
        seen += [tenant["id"] for tenant in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == names
