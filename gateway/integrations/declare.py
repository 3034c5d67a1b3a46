"""`posthouse.toml`: the integrations that a deployment declares.

    [integrations.my-slack]
    provider = "slack"
    client_id = "123.456"
    signing_secrets = [{env = "SLACK_SIGNING_SECRET"}, {file = "/run/secrets/slack-old"}]   # newest first
    client_secrets = [{env = "SLACK_CLIENT_SECRET"}]
    unattributed = "keep"          # or "drop": items that match no connection
    return_urls = ["https://app.example.com/connected"]   # where a connect session may end
    [integrations.my-slack.access_profiles.bot]
    required = ["channels:read"]
    optional = ["chat:write"]
    [integrations.my-slack.settings]                                                       # the provider's own

A secret never stands in the file: it names an environment variable, another file (relative to this one; one newline
at its end is not part of the secret), or a field of a secret in Vault / OpenBao's KV engine:

    client_secrets = [{vault = "secret/posthouse/slack#client_secret"}]

`apply` makes control be what the file says; secrets are read then, and once.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import Invalid, SetupError
from gateway.integrations.plan import Change, Plan, apply
from gateway.integrations.profiles import ProfileModel
from gateway.integrations.wanted import (
    MAX_SECRET_BYTES,
    NAME,
    PURPOSES,
    Fault,
    Purpose,
    Unattributed,
    Wanted,
    as_errors,
    checked,
)
from providers.registry import Provider

MAX_FILE_BYTES = 1024 * 1024
HOW = 'must be {env = "NAME"}, {file = "/path"} or {vault = "mount/path#field"}, never the secret itself'

# Of references into Vault, each secret, or what is wrong with the reference ("names …, which …").
FromVault = Callable[[Sequence[str]], Mapping[str, bytes | str]]


class Source(BaseModel):
    """Where a secret is read from: exactly one of these."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    env: str | None = None
    file: str | None = None
    vault: str | None = None


class Declared(BaseModel):
    """One `[integrations.NAME]` table."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    provider: str
    region: str = "default"
    client_id: str | None = None
    signing_secrets: list[Source] = Field(default_factory=list)
    client_secrets: list[Source] = Field(default_factory=list)
    unattributed: Unattributed = "keep"
    access_profiles: dict[str, ProfileModel] = Field(default_factory=dict)
    return_urls: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)


class Document(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    integrations: dict[str, Declared] = Field(default_factory=dict)


def read(
    path: Path,
    *,
    providers: Mapping[str, Provider],
    regions: Collection[str] = ("default",),
    environ: Mapping[str, str] = os.environ,
    vault: FromVault | None = None,
) -> list[Wanted]:
    """The integrations that a file declares, checked, with their secrets fetched. `vault` is asked once, for all.

    Raises: SetupError: one line that names every fault and quotes no secret.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from None
    document = _document(data, str(path))
    references = sorted({source.vault for source in _sources(document) if source.vault is not None})
    held = vault(references) if vault is not None and references else {}
    wanted, faults = [], []
    for name, declared in document.integrations.items():
        try:
            one = _wanted(name, declared, path.parent, environ, held)
            wanted.append(checked(one, providers, regions))
        except Invalid as error:
            told = [(fault["where"].removeprefix("body."), fault["message"]) for fault in error.extra["errors"]]
            faults += [f"{_table(name)} {where} {message}" for where, message in told]
    _refuse(str(path), faults)
    return wanted


def _document(data: bytes, source: str) -> Document:
    fault = ""
    raw: dict[str, Any] = {}
    try:
        if len(data) > MAX_FILE_BYTES:
            fault = f"is longer than {MAX_FILE_BYTES} bytes"
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        fault = "is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        fault = f"is not TOML: {error}"
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets without end
        fault = "is not TOML that can be read"
    if fault:  # raised here, outside: from Python 3.14 on the parser's error holds the whole text
        raise SetupError(f"{source} {fault}")
    faults: list[str] = []
    try:
        return Document.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(one["loc"], one["msg"]) for one in error.errors(include_input=False, include_url=False)]
    _refuse(source, faults)
    raise AssertionError  # pydantic raised, so there was a fault


def _fault(loc: tuple[int | str, ...], message: str) -> str:
    if len(loc) >= 3 and loc[0] == "integrations":
        table, inner = _table(str(loc[1])), loc[2:]
        if inner[0] in PURPOSES and len(inner) == 1:
            return f"{table} {inner[0]} must be a list, newest first: each {HOW}"
        if inner[0] in PURPOSES and message.startswith("Input should be a valid dictionary"):
            return f"{table} {_where(inner)} {HOW}"
        return f"{table} {_where(inner)}: {message}"
    return f"{_where(loc)}: {message}"


def _sources(document: Document) -> Iterator[Source]:
    for declared in document.integrations.values():
        for purpose in PURPOSES:
            yield from getattr(declared, purpose)


def _wanted(
    name: str, declared: Declared, folder: Path, environ: Mapping[str, str], held: Mapping[str, bytes | str]
) -> Wanted:
    secrets: dict[Purpose, tuple[bytes, ...]] = {}
    faults: list[Fault] = []
    for purpose in PURPOSES:
        found = []
        for place, source in enumerate(getattr(declared, purpose)):
            secret, fault = _fetch(source, folder, environ, held)
            found.append(secret)
            if fault:
                faults.append(((purpose, place), fault))
        secrets[purpose] = tuple(found)
    if faults:
        raise Invalid(errors=as_errors(faults))
    said = declared.model_dump(include={"provider", "region", "client_id", "settings", "unattributed"})
    profiles = {profile: said.profile() for profile, said in declared.access_profiles.items()}
    return Wanted(name=name, secrets=secrets, access_profiles=profiles, return_urls=tuple(declared.return_urls), **said)


def _fetch(
    source: Source, folder: Path, environ: Mapping[str, str], held: Mapping[str, bytes | str]
) -> tuple[bytes, str]:
    """The secret and "", or nothing and what is wrong."""
    if len(source.model_fields_set) != 1:
        return b"", HOW
    if source.vault is not None:
        found = held.get(source.vault, "names a secret in Vault, and no Vault is set up (POSTHOUSE_VAULT_ADDR)")
        return (found, "") if isinstance(found, bytes) else (b"", found)
    if source.env is not None:
        text = environ.get(source.env, "")
        # Only what looks like a variable's name is repeated: someone may have put the secret itself there.
        name = source.env if re.fullmatch(r"[A-Z_][A-Z0-9_]*", source.env) else "(no usual name)"
        return os.fsencode(text), "" if text else f"names the environment variable {name}, which is not set"
    assert source.file is not None
    path = folder / source.file
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_SECRET_BYTES + 3)
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        return b"", f"names {path}, which cannot be read: {getattr(error, 'strerror', None) or 'not a path'}"
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    return data, "" if data else f"names {path}, which is empty"


def _table(name: str) -> str:
    return f"[integrations.{name if NAME.fullmatch(name) else ascii(name[:63])}]"  # one line, whatever the key holds


def _where(loc: tuple[int | str, ...]) -> str:
    return ".".join(part if isinstance(part, str) and part.isprintable() else ascii(part) for part in loc)


def _refuse(source: str, faults: list[str]) -> None:
    if faults:
        raise SetupError(f"{source}: " + "; ".join(faults))


__all__ = ["Change", "Plan", "Wanted", "apply", "read"]
