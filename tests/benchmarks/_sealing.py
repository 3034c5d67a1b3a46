"""Sealing and opening a token set against raw AES-256-GCM of `cryptography`, in the same run. For bench-vault.

A token set is an access token of 1 KB and a refresh token of 256 bytes. Raw: the same two texts under one AESGCM
object with nonces of the system and an AAD that is at hand, which is the least that anybody could do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import ids
from gateway.clock import random_bytes
from gateway.vault.data_keys import DataKey
from gateway.vault.tokens import Place, opened_text, sealed_text

ACCESS, REFRESH = "a" * 1024, "r" * 256
PLACE = Place("default", "acme", ids.of(bytes(16)), "reader", 1, 1)
ROUNDS = 5


def measure(seconds: float = 0.3, rounds: int = ROUNDS) -> dict[str, float]:
    """Token sets per second, medians of interleaved rounds: sealed, opened, both raw, and the ratios."""
    cipher = AESGCM(b"k" * 32)
    key = DataKey("acme", 1, cipher)
    access, refresh = ACCESS.encode(), REFRESH.encode()
    aad = PLACE.aad("access_token").encoded()
    nonce = random_bytes(12)
    raw_sealed = cipher.encrypt(nonce, access, aad), cipher.encrypt(nonce, refresh, aad)
    sealed = sealed_text(key, ACCESS, PLACE.aad("access_token")), sealed_text(key, REFRESH, PLACE.aad("refresh_token"))

    def seal() -> None:
        sealed_text(key, ACCESS, PLACE.aad("access_token"))
        sealed_text(key, REFRESH, PLACE.aad("refresh_token"))

    def raw_seal() -> None:
        cipher.encrypt(random_bytes(12), access, aad)
        cipher.encrypt(random_bytes(12), refresh, aad)

    def open_() -> None:
        opened_text(key, sealed[0], PLACE.aad("access_token"))
        opened_text(key, sealed[1], PLACE.aad("refresh_token"))

    def raw_open() -> None:
        cipher.decrypt(nonce, raw_sealed[0], aad)
        cipher.decrypt(nonce, raw_sealed[1], aad)

    work: dict[str, Callable[[], None]] = {
        "sealed": seal,
        "sealed raw": raw_seal,
        "opened": open_,
        "opened raw": raw_open,
    }
    rates: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, doing in work.items():
            rates[name].append(_rate(doing, seconds))
    median = {name: statistics.median(of) for name, of in rates.items()}
    return {
        "token sets sealed/s": median["sealed"], "token sets sealed/s, raw AESGCM": median["sealed raw"],
        "token sets opened/s": median["opened"], "token sets opened/s, raw AESGCM": median["opened raw"],
        "sealing x raw AESGCM": median["sealed"] / median["sealed raw"],
        "opening x raw AESGCM": median["opened"] / median["opened raw"],
    }  # fmt: skip


def _rate(doing: Callable[[], None], seconds: float) -> float:
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(100):
            doing()
        done += 100
    return done / spent


if __name__ == "__main__":
    for name, figure in measure().items():
        print(f"{name:34} {figure:12,.2f}")
