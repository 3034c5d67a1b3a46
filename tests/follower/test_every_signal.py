"""Whatever a provider can tell, from its signed payload to what the platform sees: every sample of every `Tells`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.regions import account_hash
from providers.signals import Signal
from tests.flows.house import all_keys, declare, integration_name
from tests.follower.conftest import Street, endpoint
from tests.providers.signal_samples import SAMPLES, Sample, heard
from tests.tokens.making import granted

LONG_AGO_S = 20 * 365 * 24 * 3600.0  # before everything that the samples tell
STATES = {"revoked": "revoked", "suspended": "suspended"}


@pytest.fixture
async def keys(street: Street) -> AsyncIterator[None]:
    """Google's, and a transmitter's, at servers of ours."""
    async with all_keys() as urls:
        street.gateway.published_keys._overrides.update(urls)
        yield


@pytest.mark.usefixtures("keys")
async def test_from_its_payload_to_the_event(street: Street) -> None:
    """What is known of the generation moves at once, and says so with the delivery as its evidence; what is not stops the
    tokens and asks a check; weak evidence asks a check and says nothing."""
    told = 0
    for number, one in enumerate(SAMPLES):
        sample = replace(one, signer="microsoft/endpoint") if one.provider == "microsoft" else one
        ((item, signals),) = heard(sample)
        for signal in signals:
            name = f"{sample.provider}-{number}-{told}"
            await _connected(street, name, sample, signal, item.accounts)
            await street.deliver(sample, delivery_id=name)
            await street.follow()
            assert await _came(street, name) == _due(signal), (sample.event, signal)
            await street.town.api("DELETE", street.path(name))
            await street.db.execute("DELETE FROM gateway.dedupe")  # samples share what makes a delivery the same
            told += 1
        if not signals:
            integration = await _target(street, sample)
            await street.registered(f"nothing-{number}", "acme", integration, *item.accounts)
            if sample.signs.endpoint:
                await endpoint(street, f"nothing-{number}")
            await street.deliver(sample, delivery_id=f"nothing-{number}")
            await street.follow()
    assert told > len(SAMPLES) / 2
    assert await street.town.count("set_aside") == 0


def _due(signal: Signal) -> dict[str, Any]:
    if signal.says in ("doubtful", "scopes_changed"):
        return {"state": "active", "heard": ("hint", "asked"), "read": 200, "event": None, "checked": True}
    if signal.says == "resumed":
        moved = signal.knows != "nothing"
        state, outcome = ("active", "moved") if moved else ("suspended", "contested")
        event = "repaired" if moved else None
        return {
            "state": state,
            "heard": ("resumed", outcome),
            "read": 200 if moved else 409,
            "event": event,
            "checked": not moved,
        }
    if signal.knows == "nothing":
        return {"state": "active", "heard": (signal.says, "contested"), "read": 409, "event": None, "checked": True}
    state = STATES[signal.says]
    return {"state": state, "heard": (signal.says, "moved"), "read": 409, "event": state, "checked": False}


async def _came(street: Street, name: str) -> dict[str, Any]:
    (grant,) = (await street.town.api("GET", street.path(name))).json()["access_profiles"].values()
    events = [(kind, data) for kind, data in await street.events(name) if data["evidence"]["event"] is not None]
    last = (await street.deliveries())[-1]
    assert all(data["evidence"]["event"] == last and data["previous_state"] != data["state"] for _, data in events)
    return {
        "state": grant["state"], "heard": (await street.outcomes(name))[-1], "read": (await street.read(name)).status_code,
        "event": events[-1][0].rpartition(".")[2] if events else None, "checked": grant["check"] is not None,
    }  # fmt: skip


async def _connected(street: Street, name: str, sample: Sample, signal: Signal, named: tuple[str, ...]) -> None:
    """An account that the signal means, with one grant of the kind that it means."""
    integration = await _target(street, sample)
    profile, kind = (signal.profiles or ("reader",))[0], (signal.kinds or ("code",))[0]
    by_token = signal.knows == "token"
    await street.registered(name, "acme", integration, *([] if by_token else signal.accounts or named))
    parameters = {"installation": "957387"} if kind == "installation" else {}
    region, connection = street.gateway.regions.home, street.known[name]
    await granted(region, connection, "acme", profile, kind=kind, parameters=parameters, age_s=LONG_AGO_S)  # type: ignore[arg-type]
    if by_token:
        await _marked(street, name, integration, named)
    if signal.says == "resumed":
        await street.db.execute(
            "UPDATE gateway.grants SET state = 'suspended' WHERE connection_id = $1", connection
        )  # fmt: skip
        await street.db.execute("UPDATE gateway.connections SET state = 'suspended' WHERE id = $1", connection)
    if sample.signs.endpoint:
        await endpoint(street, name)


async def _marked(street: Street, name: str, integration: str, keys: tuple[str, ...]) -> None:
    """Its refresh token is known by these keys."""
    found = street.gateway.catalog.integration(integration)
    assert found is not None
    marks = [account_hash(street.gateway.control_keyring, found.id, key) for key in keys]
    await street.db.execute("UPDATE gateway.grants SET marks = $2 WHERE connection_id = $1", street.known[name], marks)
    await street.db.execute(
        """INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id, mark)
           SELECT $1, m, $2, true FROM unnest($3::uuid[]) AS m""",
        found.id, street.known[name], marks,
    )  # fmt: skip


async def _target(street: Street, sample: Sample) -> str:
    """The integration that the sample is sent to."""
    signer = sample.signer or sample.provider
    if sample.signs.endpoint:
        return "microsoft"
    if signer not in street.house.targets:
        await declare(street.house, signer)
        await street.gateway.catalog.refresh()
    return street.house.targets[signer].rpartition("/")[2] or integration_name(signer)
