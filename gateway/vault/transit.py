"""The Transit engine of Vault / OpenBao as key backend: the region's key never leaves it.

Each wrapped key is Transit's own text (`vault:v3:…`), bound to its `Aad` as `associated_data`: Transit's tag covers
it, as AES-GCM's does here. A server too old to know that field would ignore it, so `prove` tries it on a probe first.

What our policy at the server needs: `update` on `{mount}/encrypt/{key}` and `{mount}/decrypt/{key}` (no `create`: with
it a mistyped key is made up silently) and `read` on `{mount}/keys/{key}`; whoever rotates also `update` on
`{mount}/keys/{key}/rotate` and `…/config`. Transit's own `rewrap` is of no use: it takes no associated data (seen on
OpenBao 2.7: "message authentication failed"), so a rotation unwraps and wraps again.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gateway.clock import random_bytes
from gateway.errors import SetupError, Unavailable
from gateway.settings import Settings
from gateway.vault.backend import Wrapped
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.openbao import OpenBao, Refused

# OpenBao refuses JSON of more than 1,000 strings (its `max_request_json_strings`): an item is four, names included.
BATCH = 200
REFUSED_RETRY_S = 10
CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/=]+")
KEY_TYPES = (
    "aes256-gcm96",
    "aes128-gcm96",
    "chacha20-poly1305",
    "xchacha20-poly1305",
)  # those that take associated data


class TransitKeys:
    """A `KeyBackend` that wraps with one key of one Transit mount."""

    def __init__(self, bao: OpenBao, settings: Settings) -> None:
        self._bao, self._mount, self._key = bao, settings.vault_transit_mount, settings.vault_transit_key

    @property
    def _path(self) -> str:
        return f"{self._mount}/keys/{self._key}"

    async def current(self) -> int:
        """The newest version, which wraps new keys.    Raises: Unavailable."""
        return _number(await self._info(), "latest_version")

    async def oldest(self) -> int:
        """The oldest version that still unwraps.    Raises: Unavailable."""
        return _number(await self._info(), "min_decryption_version")

    async def wrap(self, keys: Sequence[tuple[bytes, Aad]]) -> list[bytes]:
        items = [{"plaintext": _base64(key), "associated_data": _base64(aad.encoded())} for key, aad in keys]
        wrapped = []
        for result in await self._batches("encrypt", items):
            text = result.get("ciphertext")
            if result.get("error") or not isinstance(text, str) or CIPHERTEXT.fullmatch(text) is None:
                raise Unavailable("Vault did not wrap a key", retry_after_s=REFUSED_RETRY_S)
            wrapped.append(text.encode())
        return wrapped

    async def unwrap(self, wrapped: Sequence[Wrapped]) -> list[bytes]:
        items = []
        for sealed, aad in wrapped:
            self.version_of(sealed)  # raises: nothing else than Transit's own texts goes out
            items.append({"ciphertext": sealed.decode(), "associated_data": _base64(aad.encoded())})
        return [_opened(result) for result in await self._batches("decrypt", items)]

    def version_of(self, wrapped: bytes) -> int:
        found = CIPHERTEXT.fullmatch(wrapped.decode("ascii", "replace"))
        if found is None:
            raise SealBroken("the wrapped key is none of Transit's")
        return int(found[1])

    async def rotate(self) -> int:
        """Make a new version of the key, which wraps from now on.    Raises: Unavailable, SetupError (not allowed)."""
        await self._administer(f"{self._path}/rotate", {})
        return await self.current()

    async def retire(self, version: int) -> None:
        """Let `version` and older ones neither wrap nor unwrap any more. They stay in the server and can be allowed again
        there (`min_decryption_version`).    Raises: Unavailable, SetupError (not allowed, or it is the current one)."""
        if version >= await self.current():
            raise SetupError(f"version {version} of the Transit key is the current one: rotate first")
        least = version + 1
        if await self.oldest() < least:
            await self._administer(
                f"{self._path}/config", {"min_decryption_version": least, "min_encryption_version": least}
            )

    async def prove(self) -> None:
        """That the key is there, wraps and unwraps for us, and binds.

        Raises: SetupError, one line: what is wrong; Unavailable.
        """
        info = await self._info(SetupError)
        kind = info.get("type")
        if kind not in KEY_TYPES or info.get("derived"):
            raise SetupError(
                f"the Transit key {self._key} is of type {str(kind)[:40]} (derived: {bool(info.get('derived'))}): aes256-gcm96, not derived, is needed"
            )
        probe = random_bytes(32)
        here, there = Aad(place="probe", owner="", purpose="a"), Aad(place="probe", owner="", purpose="b")
        try:
            (wrapped,) = await self._strictly(
                "encrypt", [{"plaintext": _base64(probe), "associated_data": _base64(here.encoded())}]
            )
            text = str(wrapped.get("ciphertext"))
            own, other = await self._strictly(
                "decrypt", [{"ciphertext": text, "associated_data": _base64(aad.encoded())} for aad in (here, there)]
            )
            good = _opened(own) == probe
        except SealBroken:
            good = False
        if not good:
            raise SetupError(f"the Transit key {self._key} does not give back what it took")
        try:
            _opened(other)
        except SealBroken:
            return
        raise SetupError("this Vault ignores `associated_data`, so keys could be swapped unnoticed: use a newer one")

    async def _info(self, failure: type[Unavailable] | type[SetupError] = Unavailable) -> Mapping[str, Any]:
        try:
            return _data((await self._bao.call("key", "GET", self._path)).body)
        except Refused as error:
            if error.status == 404:
                raise failure(
                    f"there is no Transit key {self._key} at {self._mount}: make it (type aes256-gcm96)"
                ) from None
            raise failure(f"{error}: let our policy read {self._path}") from None

    async def _administer(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            await self._bao.call("rotate", "POST", path, body)
        except Refused as error:
            raise SetupError(f"{error}: let our policy update {path}, or do it there") from None

    async def _batches(
        self, kind: Literal["encrypt", "decrypt"], items: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, Any]]:
        try:
            return [
                result
                for start in range(0, len(items), BATCH)
                for result in await self._batch(kind, items[start : start + BATCH])
            ]
        except Refused as error:
            raise Unavailable(str(error), retry_after_s=REFUSED_RETRY_S) from None

    async def _strictly(
        self, kind: Literal["encrypt", "decrypt"], items: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, Any]]:
        try:
            return await self._batch(kind, items)
        except Refused as error:
            raise SetupError(f"{error}: let our policy update {self._mount}/{kind}/{self._key}") from None

    async def _batch(
        self, kind: Literal["encrypt", "decrypt"], items: Sequence[Mapping[str, str]]
    ) -> list[Mapping[str, Any]]:
        """One result an item, in their order. When some fail the status is 400, and the results say which.

        Source: https://openbao.org/api-docs/secret/transit/ , `batch_input`, `partial_failure_response_code`.
        """
        path = f"{self._mount}/{kind}/{self._key}"
        answer = await self._bao.call(kind, "POST", path, {"batch_input": list(items)}, takes=(400,))
        results = _data(answer.body).get("batch_results")
        if answer.status == 400 and results is None:
            raise Refused(f"{kind} at {path}", 400)
        if (
            not isinstance(results, list)
            or len(results) != len(items)
            or not all(isinstance(one, dict) for one in results)
        ):
            raise Unavailable("Vault's answer to a batch cannot be read")
        return results


def _opened(result: Mapping[str, Any]) -> bytes:
    text = result.get("plaintext")
    if result.get("error") or not isinstance(text, str) or not text:
        raise SealBroken("the wrapped key was changed, was not wrapped for this place, or its version was retired")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass  # reported below, outside: the error's context would hold the text
    raise SealBroken("the wrapped key does not open")


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data")
    return data if isinstance(data, dict) else {}


def _number(info: Mapping[str, Any], name: str) -> int:
    found = info.get(name)
    if type(found) is not int:
        raise Unavailable("Vault's answer about the Transit key cannot be read")
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
