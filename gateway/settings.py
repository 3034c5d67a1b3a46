"""Settings of a process, read once from the environment (`POSTHOUSE_…`). Integrations are declared elsewhere."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Every setting has a default that is right for one machine. README's table is made from this class."""

    model_config = SettingsConfigDict(env_prefix="POSTHOUSE_", extra="ignore")

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15+ of region `default`; unset: `posthouse up` brings its own"
    )
    control_database_url: SecretStr | None = Field(
        None, description="a database of its own for control; unset: the region's"
    )
    home: Path = Field(Path("posthouse-data"), description="folder of `posthouse up`: embedded database, keyring")
    keyring_file: Path | None = Field(None, description="keyring file; unset: `keyring.json` in the home folder")
    keyring: SecretStr | None = Field(None, description="the keyring itself, instead of a file")

    public_url: str = Field(
        "http://127.0.0.1:8080",
        description="what providers call, without a trailing slash; never taken from headers",
    )
    public_listen: str = Field("127.0.0.1:8080", description="host:port of the public listener (/hooks)")
    private_listen: str = Field("127.0.0.1:8081", description="host:port of the private listener (everything else)")

    max_body_bytes: int = Field(25 * MIB, ge=1, description="largest delivery taken; larger ones get 413")
    max_inflight_bytes: int = Field(
        256 * MIB, ge=1, description="bytes of deliveries in memory per process; 503 beyond"
    )
    commit_deadline_s: float = Field(1.3, gt=0, description="how long a delivery waits for its commit before 503")
    drain_pause_s: float = Field(
        5.0, ge=0, description="after SIGTERM: not ready, but still serving, for the load balancer"
    )
    drain_timeout_s: float = Field(20.0, gt=0, description="then: this long for accepted requests to finish")

    retention_days: int = Field(7, ge=1, description="how long the stream keeps events (whole days are dropped)")
    poll_s: float = Field(0.5, gt=0, le=5, description="poll behind a lost wake-up")
    stale_control_s: float = Field(
        300.0, ge=0, description="how long keys and routes are served from memory while control is away"
    )
    keys_urls: dict[str, str] = Field(
        default_factory=dict,
        description='where providers\' public keys are fetched instead, as JSON `{"google": URL}`: for tests and mirrors',
    )
    outbound_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="networks beside the public ones that providers may be called in, `127.0.0.0/8,10.1.0.0/16`: "
        "for tests, demos and servers in your own network; there plain http may be used too",
    )
    log_format: Annotated[str, Field(pattern="^(json|console)$")] = Field("json", description="`json` or `console`")
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        "info", description="least level logged"
    )

    @field_validator("public_url")
    @classmethod
    def _plain_base(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or "?" in value or "#" in value:
            raise ValueError("must be an http(s) URL without query or fragment")
        return value.rstrip("/")

    @field_validator("keys_urls")
    @classmethod
    def _plain_urls(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(url.startswith(("http://", "https://")) for url in value.values()):
            raise ValueError("must hold http(s) URLs by provider")
        return value

    @field_validator("outbound_allow", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if isinstance(value, str):  # a list with commas, or a JSON one
            value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
        if not isinstance(value, list | tuple) or not all(isinstance(network, str) for network in value):
            raise ValueError("must be a list of networks")
        networks = tuple(network.strip() for network in value if network.strip())
        for network in networks:
            ip_network(network)  # its error names the network and what is wrong with it
        return networks

    @field_validator("public_listen", "private_listen")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be host:port")
        return value

    @property
    def control_url(self) -> SecretStr | None:
        """The control database: its own, or the region's."""
        return self.control_database_url or self.database_url
