"""Settings of a process, read once from the environment (`POSTHOUSE_…`). Integrations are declared elsewhere."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

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
    spool_dir: Path | None = Field(
        None,
        description="folder for token sets that came while the database was away: on a volume that outlives the process; "
        "unset: `spool` in the home folder",
    )
    keyring_file: Path | None = Field(None, description="keyring file; unset: `keyring.json` in the home folder")
    keyring: SecretStr | None = Field(None, description="the keyring itself, instead of a file")

    public_url: str = Field(
        "http://127.0.0.1:8080",
        description="what providers call, without a trailing slash; never taken from headers",
    )
    public_listen: str = Field(
        "127.0.0.1:8080", description="host:port of the public listener (/hooks, /connect, /oauth)"
    )
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
    history_days: int = Field(400, ge=1, description="how long the histories of connections are kept")
    expiring_soon_days: int = Field(
        7,
        ge=1,
        le=365,
        description="how long ahead `connection.expiring_soon` says that only a reconnect keeps a connection",
    )
    renewals_at_once: int = Field(
        64, ge=1, le=1000, description="connections whose tokens a process renews ahead at the same time"
    )
    spool_grace_s: float = Field(
        900.0, ge=0, le=24 * 3600,
        description="how long the tokens of a process that fell silent may lie in its spool: nobody spends theirs meanwhile",
    )  # fmt: skip
    poll_s: float = Field(0.5, gt=0, le=5, description="poll behind a lost wake-up")
    stale_control_s: float = Field(
        300.0, ge=0, description="how long keys and routes are served from memory while control is away"
    )
    keys_urls: dict[str, str] = Field(
        default_factory=dict,
        description='where a provider\'s public keys are fetched instead, as JSON `{"google": URL}`: for tests and mirrors',
    )
    calls_per_s: float = Field(
        50.0, gt=0, description="calls of one provider a second, of all processes of a region together"
    )
    provider_calls_per_s: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description='the same where a provider has another limit, as JSON `{"slack": 20}`'
    )
    calls_at_once: int = Field(
        32, ge=1, description="calls of one kind at one host of a provider that are under way at once per process"
    )
    key_backend: Annotated[str, Field(pattern="^(local|transit)$")] = Field(
        "local", description="what wraps the tenants' data keys: the `local` keyring, or `transit` of Vault / OpenBao"
    )
    token_store: Annotated[str, Field(pattern="^(postgres|kv)$")] = Field(
        "postgres", description="where sealed tokens lie: `postgres`, or `kv` (version 2) of Vault / OpenBao"
    )
    data_key_memory_s: float = Field(
        300.0, gt=0, description="how long an opened data key may serve from memory, also while its backend is away"
    )
    data_key_memory: int = Field(100_000, ge=1, description="opened data keys in memory per process")
    vault_addr: str | None = Field(
        None, description="URL of HashiCorp Vault or OpenBao; environment proxies are not used"
    )
    vault_namespace: str | None = Field(None, description="namespace there")
    vault_role_id: str | None = Field(None, description="AppRole login: role id")
    vault_secret_id: SecretStr | None = Field(None, description="AppRole login: secret id")
    vault_approle_mount: str = Field("approle", description="where the AppRole method is mounted")
    vault_token: SecretStr | None = Field(None, description="a static token, instead of AppRole")
    vault_ca_file: Path | None = Field(None, description="CA certificates (PEM) to trust there; unset: the system's")
    vault_client_cert_file: Path | None = Field(None, description="client certificate (PEM) shown there")
    vault_client_key_file: Path | None = Field(None, description="its private key, where it is not in the same file")
    vault_server_name: str | None = Field(None, description="name in its certificate, where that is not the URL's host")
    vault_timeout_s: float = Field(5.0, gt=0, le=60, description="deadline of one call there")
    vault_transit_mount: str = Field("transit", description="where the Transit engine is mounted")
    vault_transit_key: str = Field("posthouse", description="its key (aes256-gcm96), which must be there")
    vault_kv_mount: str = Field("secret", description="where the KV engine (version 2) is mounted")
    vault_kv_prefix: str = Field("posthouse", description="folder in it that is this deployment's alone")
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

    @field_validator("vault_addr")
    @classmethod
    def _plain_server(cls, value: str | None) -> str | None:
        return None if value is None else server_url(value)

    @field_validator(
        "vault_approle_mount", "vault_transit_mount", "vault_transit_key", "vault_kv_mount", "vault_kv_prefix"
    )
    @classmethod
    def _plain_path(cls, value: str) -> str:
        value = value.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", value) or {".", ".."} & set(value.split("/")):
            raise ValueError("must be a path of letters, digits, _ . - and /")
        return value

    @field_validator("vault_namespace", "vault_server_name")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value):
            raise ValueError("must be printable ASCII without spaces")
        return value

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
    def uses_vault(self) -> bool:
        """Some of this deployment's keys or tokens are kept in Vault / OpenBao."""
        return self.key_backend == "transit" or self.token_store == "kv"

    @property
    def spool_folder(self) -> Path:
        """Where token sets lie that could not be written."""
        return self.spool_dir or self.home / "spool"

    @property
    def control_url(self) -> SecretStr | None:
        """The control database: its own, or the region's."""
        return self.control_database_url or self.database_url


def server_url(value: str) -> str:
    """A server's URL without login, query, fragment or trailing slash.    Raises: ValueError."""
    parts = urlsplit(value)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "?" in value
        or "#" in value
        or "@" in parts.netloc
    ):
        raise ValueError("must be an http(s) URL without login, query or fragment")
    _ = parts.port  # raises where it is no number
    return value.rstrip("/")
