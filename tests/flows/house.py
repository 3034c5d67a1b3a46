"""A gateway behind real sockets, with an integration for every signer: what a provider meets when it calls us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from gateway import ids, listen, metrics
from gateway.endpoints import store as endpoints
from gateway.integrations import store
from gateway.integrations.wanted import Wanted, checked, signing_purpose
from gateway.service import Gateway
from gateway.web.hooks import public_door
from providers.registry import all_providers
from tests.flows import raw
from tests.flows.raw import Answer
from tests.serving import serving
from tests.signers import SIGNERS
from tests.signers_b import GOOGLE_PUBLISHED
from tests.signers_d import PUBLISHED as TRANSMITTER_KEYS
from tests.signing import Signer, fresh

KEPT = """SELECT seq, type, integration_id, connections, tenants, content_type, delivery::text, data
            FROM gateway.events WHERE delivery IS NOT NULL ORDER BY seq"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A delivery's event as it stands in the log."""

    type: str
    integration: UUID
    connections: tuple[UUID, ...]
    tenants: tuple[str, ...]
    content_type: str
    delivery: dict[str, Any]
    data: bytes


@dataclass
class House:
    """The public listener's URL, and what a provider or a platform would do with it."""

    gateway: Gateway
    url: str
    targets: dict[str, str] = field(default_factory=dict)  # by signer: path at the listener
    endpoints: dict[str, UUID] = field(default_factory=dict)  # by signer, where it sends to one

    def signed(
        self,
        name: str,
        body: bytes | None = None,
        *,
        delivery_id: str | None = None,
        secret: bytes | None = None,
        at: datetime | None = None,
        target: str | None = None,
    ) -> tuple[str, dict[str, str], bytes]:
        """Target, headers and body of a delivery that signer `name` sends now (a new one, unless told otherwise)."""
        signer = SIGNERS[name]
        delivery_id = delivery_id or str(ids.uuid7(self.gateway.clock.now()))
        secret = signer.secrets[0] if secret is None else secret
        now = at or self.gateway.clock.now()
        body = signer.sealed(fresh(signer, delivery_id) if body is None else body, secret, now)
        target = target or self.targets[name]
        url = self.gateway.settings.public_url + target
        return target, signer.headers(body, secret, now, delivery_id=delivery_id, url=url), body

    async def deliver(self, name: str, body: bytes | None = None, **how: Any) -> Answer:
        """Send what `signed` makes, on a connection of its own. `headers`: put over those it made."""
        over: Mapping[str, str] = how.pop("headers", {})
        target, headers, body = self.signed(name, body, **how)
        return await self.ask(raw.request(target, {**headers, **over}, body))

    async def ask(self, data: bytes, *, head: bool = False) -> Answer:
        """A request as it is, on a connection of its own."""
        return await raw.ask(self.url, data, head=head)

    async def kept(self) -> list[Kept]:
        """The deliveries in the log."""
        rows = await self.gateway.regions.home.database.fetch(KEPT)
        return [
            Kept(
                row["type"], row["integration_id"], tuple(row["connections"]), tuple(row["tenants"]),
                row["content_type"], json.loads(row["delivery"]), row["data"],
            )
            for row in rows
        ]  # fmt: skip

    def integration(self, name: str) -> Any:
        found = self.gateway.catalog.integration(integration_name(name))
        assert found is not None
        return found


def integration_name(signer: str) -> str:
    """What the integration of a signer is called."""
    return signer.replace("/", "-")


def wanted(name: str, signer: Signer, secrets: Sequence[bytes] | None = None) -> Wanted:
    """The integration that knows a signer's newest secret (or these)."""
    provider = all_providers()[signer.provider]
    known = tuple(signer.secrets[:1] if secrets is None else secrets)
    if signer.endpoint or signer.keys:
        known = ()
    made = Wanted(
        name=integration_name(name), provider=signer.provider, client_id=signer.client_id, settings=signer.settings,
        secrets={signing_purpose(provider): known},
    )  # fmt: skip
    return checked(made, all_providers(), ("default",))


async def declare(house: House, name: str, *, state: endpoints.State = "live", confirm_ttl_s: float = 600) -> None:
    """Make the integration of signer `name`, and its hook endpoint where it sends to one."""
    gateway, signer = house.gateway, SIGNERS[name]
    now = gateway.clock.now()
    async with gateway.control.transaction() as tx:
        made = await store.create(tx, gateway.control_keyring, wanted(name, signer), now, by="api")
    house.targets[name] = f"/hooks/{made.name}"
    if signer.endpoint:
        region = gateway.regions.home
        house.endpoints[name] = ids.uuid7(now)
        async with region.database.transaction() as tx:
            await endpoints.create(
                tx, endpoints.Vault(region.name, region.keyring), house.endpoints[name], integration_id=made.id,
                connection_id=None, state=state, confirm_ttl_s=confirm_ttl_s, secrets=signer.secrets[:1],
            )  # fmt: skip
        house.targets[name] += "/" + ids.show(ids.ENDPOINT, house.endpoints[name])
    await gateway.catalog.refresh()


@asynccontextmanager
async def opened(gateway: Gateway) -> AsyncIterator[House]:
    """The public listener of `gateway` on a free port."""
    bound = listen.bind("127.0.0.1:0", "public")
    async with serving(listen.direct(public_door(gateway)), bound) as url:
        yield House(gateway, url)


@asynccontextmanager
async def publishing(keys: Mapping[str, Any] = GOOGLE_PUBLISHED) -> AsyncIterator[str]:
    """A URL at which `keys` are published: by key id, as Google publishes its certificates."""
    server = await asyncio.start_server(partial(_publish, json.dumps(dict(keys)).encode()), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}/certs"
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def all_keys() -> AsyncIterator[dict[str, str]]:
    """`Settings.keys_urls` by which a gateway finds the keys of every signer that has some."""
    transmitter = {"keys": list(TRANSMITTER_KEYS.values())}
    async with publishing() as google, publishing(transmitter) as jwks:
        yield {"google": google, "ssf": jwks, "generic-oauth2": jwks}


async def _publish(document: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    head = f"HTTP/1.1 200 OK\r\ncache-control: max-age=3600\r\nconnection: close\r\ncontent-length: {len(document)}\r\n\r\n"
    writer.write(head.encode() + document)
    await writer.drain()
    writer.close()


def metric(name: str, **labels: str) -> float:
    """A sample of this process's metrics; 0 where nothing has counted yet."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    """`headers` without these."""
    return {name: value for name, value in headers.items() if name not in names}
