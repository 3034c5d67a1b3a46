"""The local keyring: sealing keys of several versions, and one hashing key that never rotates.

As JSON, in a file that only its owner reads or in `POSTHOUSE_KEYRING`:

    {"current": 2, "keys": {"1": "<base64 of 32 bytes>", "2": "…"}, "hashing": "<base64 of 32 bytes>"}

New blobs are sealed under `current`; older versions still open theirs. The hashing key makes keyed hashes (dedupe
keys, API keys, account hashes) that must stay comparable for as long as their rows live, hence it stays.

A process holds one `Keyring` for its life, and everybody in it the same one. When the keyring is changed outside, that
object takes the new keys over (`take`, called by `watch.py`), so nobody needs to be told. A blob under a version that
it lacks makes it look at once (`when_unknown`): another process may have learned of a new key a moment earlier.
No error, repr or traceback of this file holds key material.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import ids
from gateway.clock import random_bytes
from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import cipher, files
from gateway.vault.cipher import KEY_BYTES, Aad, SealBroken

MAX_VERSION = 2**32 - 1  # four bytes of a sealed blob


class _Sealing(NamedTuple):
    """The sealing keys at one moment: exchanged as a whole, so that no thread sees half of a change."""

    current: int
    keys: Mapping[int, bytes]
    ciphers: Mapping[int, AESGCM]


class Keyring:
    """Keys of one place (control, or a region). Made by `load`, `parse` or `generate`."""

    __slots__ = ("_hashing", "_keyed", "_sealing", "when_unknown")

    def __init__(self, current: int, keys: Mapping[int, bytes], hashing: bytes) -> None:
        self._sealing = _Sealing(current, dict(keys), {version: AESGCM(key) for version, key in keys.items()})
        self._hashing = hashing
        self.when_unknown: Callable[[], None] | None = None  # may `take` newer keys before a blob is given up
        self._keyed: dict[str, blake2b] = {}  # by purpose, to be copied: setting one up costs more than using it

    def __repr__(self) -> str:
        return "Keyring(…)"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a keyring is not pickled")

    @property
    def current(self) -> int:
        """The version that seals."""
        return self._sealing.current

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions, the oldest first."""
        return tuple(sorted(self._sealing.keys))

    def seal(self, plaintext: bytes, aad: Aad) -> bytes:
        """`plaintext` under the current key, bound to `aad`."""
        sealing = self._sealing
        return cipher.seal(sealing.ciphers[sealing.current], sealing.current, plaintext, aad)

    def open(self, sealed: bytes, aad: Aad) -> bytes:
        """What was sealed with an equal `aad`, under any version.    Raises: SealBroken."""
        if self.when_unknown is not None and cipher.version_of(sealed) not in self._sealing.ciphers:
            self.when_unknown()
        return cipher.open_sealed(self._sealing.ciphers, sealed, aad)

    def take(self, newer: Keyring) -> None:
        """Go on with the sealing keys of `newer`.

        Raises: SetupError, it is another deployment's: the hashing key, or a version that both hold, differs.
        """
        mine, theirs = self._sealing, newer._sealing
        differ = [v for v, key in mine.keys.items() if not hmac.compare_digest(theirs.keys.get(v, key), key)]
        if differ or not hmac.compare_digest(self._hashing, newer._hashing):
            raise SetupError("the keyring was exchanged for another one: restore the right one")
        self._sealing = theirs

    def mac(self, purpose: str, data: bytes) -> bytes:
        """A keyed hash, 32 bytes. Equal for equal (`purpose`, `data`), for the life of the deployment."""
        named = purpose.encode()
        return hmac.digest(self._hashing, len(named).to_bytes(4, "big") + named + data, "sha256")

    def mac_id(self, purpose: str, data: bytes) -> UUID:
        """A keyed hash of 16 bytes, as a uuid column holds it: dedupe keys, account hashes.

        Keyed BLAKE2b, because the hot path makes several and OpenSSL's HMAC costs five times as much to set up.
        """
        keyed = self._keyed.get(purpose)
        if keyed is None:
            keyed = self._keyed[purpose] = blake2b(digest_size=16, key=self._hashing, person=purpose.encode())
        mac = keyed.copy()
        mac.update(data)
        return ids.of(mac.digest())

    def proofs(self, place: str) -> dict[int, bytes]:
        """By version (0 is the hashing key): a MAC of a constant, which tells keyrings apart and nothing else."""
        told = b"posthouse keyring check\0" + place.encode()
        keys = {0: self._hashing, **self._sealing.keys}
        return {version: hmac.digest(key, told, "sha256") for version, key in keys.items()}

    def with_new_version(self, *, current: bool = True) -> Keyring:
        """This keyring and one more key. `current=False`: processes learn to open it before any seals under it."""
        version = max(self._sealing.keys) + 1
        keys = {**self._sealing.keys, version: random_bytes(KEY_BYTES)}
        return Keyring(version if current else self.current, keys, self._hashing)

    def with_current(self, version: int) -> Keyring:
        """This keyring, sealing under `version` from now on.    Raises: SetupError, there is no such version."""
        self._holding(version)
        return Keyring(version, self._sealing.keys, self._hashing)

    def without(self, version: int) -> Keyring:
        """This keyring and one key less.    Raises: SetupError: it holds no such version, or seals under it."""
        self._holding(version)
        if version == self.current:
            raise SetupError(f"key version {version} is the current one: `posthouse keyring rotate` first")
        return Keyring(self.current, {v: key for v, key in self._sealing.keys.items() if v != version}, self._hashing)

    def _holding(self, version: int) -> None:
        if version not in self._sealing.keys:
            raise SetupError(f"the keyring has no key version {version}")

    def to_json(self) -> str:
        """The keyring's file. This *is* the secret: for writing to one, never for a log."""
        keys = {str(version): base64.b64encode(self._sealing.keys[version]).decode() for version in self.versions}
        whole = {"current": self.current, "keys": keys, "hashing": base64.b64encode(self._hashing).decode()}
        return json.dumps(whole, indent=2) + "\n"


def generate() -> Keyring:
    """A new keyring with one version."""
    return Keyring(1, {1: random_bytes(KEY_BYTES)}, random_bytes(KEY_BYTES))


def load(settings: Settings) -> Keyring:
    """The keyring of this process, from `POSTHOUSE_KEYRING` or its file.    Raises: SetupError, one line."""
    if settings.keyring is not None:
        if settings.keyring_file is not None:
            raise SetupError("both POSTHOUSE_KEYRING and POSTHOUSE_KEYRING_FILE are set: keep one of them")
        return parse(settings.keyring.get_secret_value(), "POSTHOUSE_KEYRING")
    path = files.path(settings)
    return parse(files.read(path), str(path))


def absent(settings: Settings) -> bool:
    """Whether none is given and there is no file yet where `load_or_create` would make one."""
    return settings.keyring is None and settings.keyring_file is None and not files.path(settings).exists()


def load_or_create(settings: Settings) -> Keyring:
    """`load`, after making the file in the home folder at the very first start. For `posthouse up`.

    A keyring that the operator named is never made up: a path that was mistyped must not start a second one.
    """
    if absent(settings):
        files.create(files.path(settings), generate().to_json())
    return load(settings)


def add_version(settings: Settings, *, current: bool = True) -> Keyring:
    """Add a key to the keyring's file and return the new keyring.    Raises: SetupError."""
    return _changed(settings, lambda keyring: keyring.with_new_version(current=current))


def use_version(settings: Settings, version: int) -> Keyring:
    """Make the keyring's file seal under `version`, which it holds already.    Raises: SetupError."""
    return _changed(settings, lambda keyring: keyring.with_current(version))


def drop_version(settings: Settings, version: int) -> Keyring:
    """Take a version out of the keyring's file: what is still under it never opens again.    Raises: SetupError."""
    return _changed(settings, lambda keyring: keyring.without(version))


def _changed(settings: Settings, change: Callable[[Keyring], Keyring]) -> Keyring:
    if settings.keyring is not None:
        raise SetupError("the keyring comes from POSTHOUSE_KEYRING: change it where that is set")
    path = files.path(settings)
    with files.locked(path):
        changed = change(load(settings))
        files.replace(path, changed.to_json())
    return changed


def parse(text: str, source: str) -> Keyring:
    """The keyring that `text` spells; `source` names it in errors.    Raises: SetupError, one line, no key in it."""
    whole = _object(text)
    if whole is None:
        raise SetupError(f"the keyring in {source} is not a JSON object (or names a field twice)")
    if set(whole) != {"current", "keys", "hashing"} or not isinstance(whole["keys"], dict) or not whole["keys"]:
        raise SetupError(f'the keyring in {source} must hold "current", "keys" and "hashing", and nothing else')
    keys: dict[int, bytes] = {}
    for name, value in whole["keys"].items():
        if not name.isascii() or not name.isdigit() or name.startswith("0") or not 1 <= int(name[:11]) <= MAX_VERSION:
            raise SetupError(f"a key version in {source} is not a whole number from 1 up")
        keys[int(name)] = _key(value, f"key version {int(name)} in {source}")
    hashing = _key(whole["hashing"], f"the hashing key in {source}")
    if len({hashing, *keys.values()}) != 1 + len(keys):
        raise SetupError(f"the keyring in {source} holds the same key twice: each must be random by itself")
    current = whole["current"]
    if type(current) is not int or current not in keys:
        raise SetupError(f'"current" in the keyring in {source} names no key version that it holds')
    return Keyring(current, keys, hashing)


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object whose fields are all named once. None otherwise: a JSON error would hold the whole text."""
    try:
        whole = json.loads(text, object_pairs_hook=_named_once)
    except (ValueError, RecursionError):
        return None
    return whole if isinstance(whole, dict) else None


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


def _key(value: object, what: str) -> bytes:
    key = b""
    if isinstance(value, str):
        try:
            key = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            pass  # reported below, outside: the error's context would hold the text
    if len(key) != KEY_BYTES:
        raise SetupError(f"{what} is not {KEY_BYTES} bytes in base64")
    return key


__all__ = [
    "Aad", "Keyring", "SealBroken", "absent", "add_version", "drop_version", "generate", "load", "load_or_create", "parse",
    "use_version",
]  # fmt: skip
