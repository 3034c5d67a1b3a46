"""What an integration is meant to be, said by file or by API, and whether that can be."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from gateway.errors import Invalid
from gateway.integrations.profiles import MOST_RETURN_URLS, AccessProfile, profile_faults, return_url_fault
from providers.registry import Provider

Purpose = Literal["signing_secrets", "client_secrets"]
PURPOSES: tuple[Purpose, ...] = ("signing_secrets", "client_secrets")
Unattributed = Literal["keep", "drop"]
DeclaredBy = Literal["file", "api"]

Fault = tuple[tuple[str | int, ...], str]  # where, and what is wrong there, as the end of a sentence

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # as control.integrations checks it
MAX_SECRETS = 8  # of one purpose: a rotation needs two, and each costs every wrong signature a computation
MAX_SECRET_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An integration as it is asked for, with its secrets in plain: it lives for one call and shows none of them."""

    name: str
    provider: str
    region: str = "default"
    client_id: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    unattributed: Unattributed = "keep"
    access_profiles: Mapping[str, AccessProfile] = field(default_factory=dict)
    return_urls: tuple[str, ...] = ()
    secrets: Mapping[Purpose, tuple[bytes, ...]] = field(default_factory=dict, repr=False)  # newest first


def signing_purpose(provider: Provider) -> Purpose:
    """Which of an integration's secrets its provider signs deliveries with."""
    return "client_secrets" if provider.facts.signs_with == "client_secrets" else "signing_secrets"


def checked(wanted: Wanted, providers: Mapping[str, Provider], regions: Collection[str]) -> Wanted:
    """`wanted` with its settings as the provider's model reads them.

    Raises: Invalid; `errors` says where and what of each fault, as the API shows it, and quotes no value.
    """
    faults: list[Fault] = []
    if not NAME.fullmatch(wanted.name):
        faults.append((("name",), "must be 1 to 63 of a-z, 0-9 and -, and not begin with -"))
    if wanted.region not in regions:
        faults.append((("region",), f"is not a region of this deployment ({', '.join(sorted(regions))})"))
    if wanted.client_id is not None and not (1 <= len(wanted.client_id) <= 1000 and wanted.client_id.isprintable()):
        faults.append((("client_id",), "must be 1 to 1000 printable characters"))
    provider = providers.get(wanted.provider)
    if provider is None:
        faults.append((("provider",), f"is not known: one of {', '.join(sorted(providers))}"))
    else:
        read, wrong = _settings(wanted.settings, provider)
        wanted = replace(wanted, settings=read)
        faults += [*wrong, *_secrets(wanted, provider)]
        oauth = provider.oauth if wrong else provider.oauth_for(read)  # profiles may hang on settings
        faults += [
            (("access_profiles", name) if name else ("access_profiles",), fault)
            for name, fault in profile_faults(wanted.access_profiles, oauth)
        ]
    if len(wanted.return_urls) > MOST_RETURN_URLS:
        faults.append((("return_urls",), f"are more than {MOST_RETURN_URLS}"))
    for place, url in enumerate(wanted.return_urls):
        if (fault := return_url_fault(url)) is not None:
            faults.append((("return_urls", place), fault))
    if faults:
        raise Invalid(f"integration {wanted.name[:63]!r} cannot be set up like this", errors=as_errors(faults))
    return wanted


def as_errors(faults: list[Fault]) -> list[dict[str, str]]:
    """Entries of a problem's `errors`: `body.signing_secrets.0`, and what is wrong there."""
    return [
        {"where": ".".join(["body", *map(str, where)]), "message": message, "type": "invalid"}
        for where, message in faults
    ]


def _settings(said: Mapping[str, Any], provider: Provider) -> tuple[dict[str, Any], list[Fault]]:
    try:
        model = provider.settings.model_validate(dict(said))
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False, include_context=False)
        return {}, [(("settings", *fault["loc"]), fault["msg"]) for fault in wrong]
    settings = model.model_dump(mode="json", exclude_unset=True)
    if not _storable(settings):
        return {}, [(("settings",), "holds a character or a number that cannot be stored")]
    return settings, []


def _storable(settings: dict[str, Any]) -> bool:
    """PostgreSQL's jsonb takes neither NUL nor half a surrogate pair, and JSON neither infinity nor NaN."""
    try:
        text = json.dumps(settings, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:
        return False
    return "\\u0000" not in text


def _secrets(wanted: Wanted, provider: Provider) -> list[Fault]:
    faults: list[Fault] = []
    signing = signing_purpose(provider)
    for purpose in PURPOSES:
        secrets = wanted.secrets.get(purpose, ())
        if secrets and purpose == "signing_secrets" and signing == "client_secrets":
            faults.append(((purpose,), f"are not used: {provider.facts.title} signs with the client secret"))
        if len(secrets) > MAX_SECRETS:
            faults.append(((purpose,), f"are more than {MAX_SECRETS}: retire old ones"))
        if len(set(secrets)) != len(secrets):
            faults.append(((purpose,), "hold the same secret twice"))
        for place, secret in enumerate(secrets):
            wrong = secret_fault(secret, provider if purpose == signing else None)
            if wrong is not None:
                faults.append(((purpose, place), wrong))
    return faults


def secret_fault(secret: bytes, provider: Provider | None) -> str | None:
    """What is wrong with a secret, or None. `provider`: the one that signs with it, if one does."""
    if not 1 <= len(secret) <= MAX_SECRET_BYTES:
        return "is empty" if not secret else f"is longer than {MAX_SECRET_BYTES} bytes"
    return provider.check_secret(secret) if provider is not None and provider.check_secret is not None else None
