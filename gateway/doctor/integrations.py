"""Each integration's set-up, and what of its deliveries was refused of late."""

from __future__ import annotations

from statistics import median
from typing import Any

from gateway.doctor.finding import Finding
from gateway.errors import Invalid
from gateway.integrations import secrets, store
from gateway.integrations.store import Stored
from gateway.integrations.wanted import Wanted, checked, secret_fault, signing_purpose
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from providers.registry import Provider, all_providers

SKEW_S = 60.0  # from here on a clock is the likely cause of refusals

REFUSED = """SELECT integration_id, reason, count(*) AS times, array_agg(skew_s) FILTER (WHERE skew_s IS NOT NULL) AS skews
               FROM gateway.refusals WHERE at > gateway.now() - interval '1 day' GROUP BY 1, 2 ORDER BY 3 DESC, 2"""


async def look(control: Any, region: Any, keys: Keyring | None) -> list[Finding]:
    """One line an integration, more where something is wrong."""
    findings = []
    known = all_providers()
    sealed = await secrets.all_secrets(control)
    refused: dict[Any, list[Any]] = {}
    for row in await region.fetch(REFUSED):
        refused.setdefault(row["integration_id"], []).append(row)
    found = await store.page(control, limit=10_000)
    for integration in found:
        about = f"integration {integration.name}"
        mine = [secret for secret in sealed if secret.integration_id == integration.id]
        faults = _faults(integration, known.get(integration.provider), mine, keys)
        findings += [Finding("fix", about, fault) for fault in faults]
        rows = refused.get(integration.id, [])
        if rows:
            findings.append(Finding("look", about, _refusals(rows, integration.name)))
        if not faults and not rows:
            findings.append(Finding("ok", about, f"{integration.provider}, {len(mine)} secrets"))
    return findings or [Finding("ok", "integrations", "none yet: declare them in posthouse.toml and `posthouse apply`")]


def _faults(
    integration: Stored, provider: Provider | None, sealed: list[secrets.SealedSecret], keys: Keyring | None
) -> list[str]:
    if provider is None:
        return [
            f"this version knows no provider {integration.provider}: deliveries are answered 503; use the version that does"
        ]
    faults = []
    try:
        checked(
            Wanted(name=integration.name, provider=integration.provider, region=integration.region,
                   client_id=integration.client_id, settings=integration.settings, unattributed=integration.unattributed,
                   access_profiles=integration.access_profiles, return_urls=integration.return_urls),
            {provider.facts.name: provider}, {"default"},
        )  # fmt: skip
    except Invalid as error:
        faults += [f"{each['where'].removeprefix('body.')} {each['message']}" for each in error.extra["errors"]]
    purpose = signing_purpose(provider)
    signing = [secret for secret in sealed if secret.purpose == purpose]
    if provider.facts.signs_with in ("signing_secrets", "client_secrets") and not signing:
        faults.append(
            f"has no {purpose}: every delivery is refused; `posthouse integrations add-secret {integration.name}`"
        )
    for secret in sealed if keys is not None else []:
        assert keys is not None
        try:
            opened = keys.open(secret.sealed, secrets.secret_aad(secret.integration_id, secret.purpose, secret.id))
        except SealBroken:
            faults.append(f"{secret.purpose}[{secret.position}] does not open with this keyring: set it again")
            continue
        if fault := secret_fault(opened, provider if secret.purpose == purpose else None):
            faults.append(f"{secret.purpose}[{secret.position}] {fault}")
    return faults


def _refusals(rows: list[Any], name: str) -> str:
    told = ", ".join(f"{row['reason']} {row['times']}" for row in rows[:5])
    line = f"refused in the last day: {told}"
    skews = [skew for row in rows for skew in row["skews"] or ()]
    if skews and abs(middle := median(skews)) > SKEW_S:
        late = "older" if middle > 0 else "newer"
        return f"{line}; signed times are {abs(middle):.0f} s {late} than our clock: check NTP here, then the sender"
    return f"{line}; see `posthouse deliveries refused --integration {name}`"
