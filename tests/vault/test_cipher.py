"""A sealed blob opens where it was sealed, as it was sealed, and nowhere else."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.vault.cipher import Aad, SealBroken, version_of
from gateway.vault.keyring import generate

RING = generate()
PLACES = st.builds(
    Aad,
    place=st.text(max_size=8),
    owner=st.text(max_size=8) | st.uuids(),
    purpose=st.text(max_size=8),
    row=st.text(max_size=8) | st.uuids(),
    more=st.lists(st.text(max_size=4), max_size=3).map(tuple),
)
HERE = Aad(place="control", owner=UUID(int=1), purpose="signing_secrets", row=UUID(int=2))


@given(st.binary(max_size=300), PLACES)
def test_what_was_sealed_opens_in_its_place(secret: bytes, aad: Aad) -> None:
    """Any bytes, bound to any place, come back as they were; the blob shows them nowhere."""
    sealed = RING.seal(secret, aad)
    assert RING.open(sealed, aad) == secret
    assert len(secret) < 8 or secret not in sealed


@given(PLACES, PLACES)
def test_a_blob_moved_to_another_place_does_not_open(sealed_for: Aad, opened_at: Aad) -> None:
    """Places encode to the same bytes only if they are the same place, and only then does a blob open."""
    told = [(a.place, str(a.owner), a.purpose, str(a.row), a.more) for a in (sealed_for, opened_at)]
    assert (sealed_for.encoded() == opened_at.encoded()) == (told[0] == told[1])
    if told[0] != told[1]:
        with pytest.raises(SealBroken):
            RING.open(RING.seal(b"secret", sealed_for), opened_at)


def test_parts_that_run_together_stay_apart() -> None:
    """("ab", "c") and ("a", "bc") are different places."""
    one = Aad(place="ab", owner="c", purpose="", row="")
    other = Aad(place="a", owner="bc", purpose="", row="")
    assert one.encoded() != other.encoded()


@given(st.binary(max_size=40), st.data())
def test_a_flipped_bit_anywhere_does_not_open(secret: bytes, data: st.DataObject) -> None:
    """Format, key version, nonce, text and tag are all authenticated."""
    sealed = bytearray(RING.seal(secret, HERE))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken):
        RING.open(bytes(sealed), HERE)


@given(st.binary(max_size=40), st.data())
def test_a_truncated_or_lengthened_blob_does_not_open(secret: bytes, data: st.DataObject) -> None:
    """Every proper prefix, the empty one included, and every blob with something behind it."""
    sealed = RING.seal(secret, HERE)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for broken in (sealed[:cut], b"", sealed + data.draw(st.binary(min_size=1, max_size=20))):
        with pytest.raises(SealBroken):
            RING.open(broken, HERE)


@given(st.binary(max_size=200))
def test_noise_does_not_open(noise: bytes) -> None:
    """Bytes that nobody sealed raise the one typed error, whatever they are."""
    with pytest.raises(SealBroken):
        RING.open(noise, HERE)


def test_a_blob_of_another_keyring_does_not_open() -> None:
    """The same version number of another keyring is another key."""
    with pytest.raises(SealBroken):
        RING.open(generate().seal(b"secret", HERE), HERE)


def test_the_same_secret_twice_looks_different() -> None:
    """Nonces are random: equal secrets cannot be told by their blobs."""
    assert len({RING.seal(b"secret", HERE) for _ in range(100)}) == 100


def test_a_blob_tells_its_key_version() -> None:
    """For rotation's progress; of what is no blob, nothing."""
    grown = RING.with_new_version()
    assert (version_of(RING.seal(b"", HERE)), version_of(grown.seal(b"", HERE))) == (1, 2)
    assert version_of(b"") is None
    assert version_of(b"\x09" * 40) is None
