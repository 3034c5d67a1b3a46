"""The keyring: many versions, one file that only its owner reads, errors of one line without a key in them."""

from __future__ import annotations

import base64
import json
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import files
from gateway.vault.keyring import (
    Aad,
    Keyring,
    SealBroken,
    add_version,
    generate,
    load,
    load_or_create,
    parse,
    use_version,
)

HERE = Aad(place="control", owner="x", purpose="test")
KEY, OTHER, HASHING = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
GOOD: dict[str, Any] = {"current": 2, "keys": {"1": KEY, "2": OTHER}, "hashing": HASHING}


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(_env_file=None, home=tmp_path / "home", **more)


def test_older_versions_still_open_and_new_blobs_use_the_current_one() -> None:
    """A rotation leaves nothing unreadable; a keyring without the new key says which one it lacks."""
    old = generate()
    new = old.with_new_version()
    assert new.open(old.seal(b"before", HERE), HERE) == b"before"
    with pytest.raises(SealBroken, match="no key version 2"):
        old.open(new.seal(b"after", HERE), HERE)


def test_a_version_can_be_spread_before_it_is_used() -> None:
    """With `current=False` every process learns to open the new key before any seals under it."""
    old = generate()
    spread = old.with_new_version(current=False)
    assert (spread.current, spread.versions) == (1, (1, 2))
    assert spread.with_current(2).current == 2
    with pytest.raises(SetupError, match="no key version 7"):
        spread.with_current(7)


def test_keyed_hashes_outlive_rotation_and_differ_by_purpose() -> None:
    """The hashing key stays, so dedupe keys and API keys stay comparable; purposes never meet."""
    ring = generate()
    assert ring.with_new_version().mac("a", b"data") == ring.mac("a", b"data")
    assert len({ring.mac("a", b"bc"), ring.mac("ab", b"c"), ring.mac("", b"abc"), generate().mac("a", b"bc")}) == 4
    assert len({ring.mac_id("a", b"bc"), ring.mac_id("ab", b"c"), generate().mac_id("a", b"bc")}) == 3
    assert ring.with_new_version().mac_id("a", b"data") == ring.mac_id("a", b"data")
    assert len(ring.mac("a", b"data")) == 32


def test_a_keyring_survives_its_file(tmp_path: Path) -> None:
    """The first start makes the file, mode 0600; the second reads the same keys."""
    where = settings(tmp_path)
    first = load_or_create(where)
    assert files.path(where).stat().st_mode & 0o777 == 0o600
    assert load_or_create(where).open(first.seal(b"x", HERE), HERE) == b"x"
    assert [entry.name for entry in files.path(where).parent.iterdir()] == ["keyring.json"]


def test_a_keyring_that_was_named_is_never_made_up(tmp_path: Path) -> None:
    """A mistyped path must not start a second keyring beside the right one."""
    with pytest.raises(SetupError, match="no keyring at"):
        load_or_create(settings(tmp_path, keyring_file=tmp_path / "typo.json"))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_keyring_is_never_overwritten(tmp_path: Path) -> None:
    """Losing it would lose every secret that was sealed under it."""
    load_or_create(settings(tmp_path))
    with pytest.raises(SetupError, match="already a keyring"):
        files.create(files.path(settings(tmp_path)), generate().to_json())


def test_a_version_is_added_to_the_file(tmp_path: Path) -> None:
    """The file holds both keys afterwards and is still its owner's alone."""
    where = settings(tmp_path)
    first = load_or_create(where)
    assert add_version(where, current=False).current == 1
    assert use_version(where, 2).current == 2
    again = load(where)
    assert (again.current, again.versions) == (2, (1, 2))
    assert again.open(first.seal(b"x", HERE), HERE) == b"x"
    assert files.path(where).stat().st_mode & 0o777 == 0o600


def test_the_environment_may_hold_the_keyring(tmp_path: Path) -> None:
    """Instead of a file, not beside one; and it is not ours to change."""
    ring = generate()
    told = SecretStr(ring.to_json())
    assert load(settings(tmp_path, keyring=told)).open(ring.seal(b"x", HERE), HERE) == b"x"
    with pytest.raises(SetupError, match="both POSTHOUSE_KEYRING"):
        load(settings(tmp_path, keyring=told, keyring_file=tmp_path / "k.json"))
    with pytest.raises(SetupError, match="where that is set"):
        add_version(settings(tmp_path, keyring=told))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a JSON object"),
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        (json.dumps(GOOD).replace('"2":', '"1":'), "names a field twice"),
        (json.dumps({**GOOD, "more": 1}), "nothing else"),
        (json.dumps({"current": 2, "keys": GOOD["keys"]}), '"hashing"'),
        (json.dumps({**GOOD, "keys": {}}), '"keys"'),
        (json.dumps({**GOOD, "keys": [KEY]}), '"keys"'),
        (json.dumps({**GOOD, "keys": {"0": KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"01": KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"-1": KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"²": KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"4294967296": KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"9" * 5000: KEY}}), "whole number from 1"),
        (json.dumps({**GOOD, "keys": {"1": KEY, "2": KEY}}), "same key twice"),
        (json.dumps({**GOOD, "hashing": KEY}), "same key twice"),
        (json.dumps({**GOOD, "keys": {"1": KEY, "2": KEY[:20]}}), "key version 2 in the-file is not 32 bytes"),
        (json.dumps({**GOOD, "keys": {"1": KEY, "2": "é" + KEY}}), "not 32 bytes in base64"),
        (json.dumps({**GOOD, "keys": {"1": KEY, "2": KEY + "!"}}), "not 32 bytes in base64"),
        (json.dumps({**GOOD, "keys": {"1": KEY, "2": 5}}), "not 32 bytes in base64"),
        (json.dumps({**GOOD, "hashing": None}), "hashing key in the-file is not 32 bytes"),
        (json.dumps({**GOOD, "current": 3}), '"current"'),
        (json.dumps({**GOOD, "current": "2"}), '"current"'),
        (json.dumps({**GOOD, "current": True}), '"current"'),
    ],
)
def test_a_broken_keyring_is_refused_in_one_line_without_its_keys(text: str, says: str) -> None:
    """The line says what is wrong; no exception on the way, shown or hidden, holds key material."""
    with pytest.raises(SetupError) as caught:
        parse(text, "the-file")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_without(caught.value, KEY, OTHER, HASHING, KEY[:20])


def test_a_missing_or_open_file_is_refused(tmp_path: Path) -> None:
    """Missing, a folder, not text, endless, readable by others: each in one line."""
    where = settings(tmp_path, keyring_file=tmp_path / "keyring.json")
    file = tmp_path / "keyring.json"
    with pytest.raises(SetupError, match="there is no keyring at"):
        load(where)
    file.mkdir()
    with pytest.raises(SetupError, match="cannot be read: Is a directory"):
        load(where)
    file.rmdir()
    for data in (b"\xff\xfe", b"x" * (files.MAX_BYTES + 1)):
        file.write_bytes(data)
        file.chmod(0o600)
        with pytest.raises(SetupError, match="is not a text"):
            load(where)
    file.write_text(json.dumps(GOOD))
    for mode in (0o604, 0o602, 0o620, 0o666):
        file.chmod(mode)
        with pytest.raises(SetupError, match="chmod 600"):
            load(where)
    for mode in (0o600, 0o400, 0o440):  # Kubernetes gives a secret by its group
        file.chmod(mode)
        assert load(where).current == 2


def test_nothing_shows_a_key() -> None:
    """repr, str, format, vars and pickle of a keyring hold no key."""
    ring = parse(json.dumps(GOOD), "x")
    for shown in (repr(ring), str(ring), f"{ring}", repr([ring]), repr(HERE)):
        assert all(part not in shown for part in (KEY, OTHER, HASHING, repr(b"\1" * 4)[2:-1]))
    assert not hasattr(ring, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(ring)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A version that is not on the disk is not in use: the error comes before anything is sealed under it."""
    where = settings(tmp_path)
    load_or_create(where)
    before = files.path(where).read_text()
    os.mkdir(files.path(where).with_name(f".keyring.json.{os.getpid()}.new"))  # the draft's place is taken
    with pytest.raises(SetupError, match="cannot be written"):
        add_version(where)
    assert files.path(where).read_text() == before


def assert_without(error: BaseException, *secrets: str) -> None:
    """Neither the printed traceback nor any exception behind `error`, shown or not, holds one of `secrets`."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is not None and one not in seen:
            seen.append(one)
            queue += [one.__cause__, one.__context__]
    told = "".join(repr(one) + repr(vars(one)) for one in seen) + "".join(traceback.format_exception(error))
    assert all(secret not in told for secret in secrets if secret)


def test_the_keyring_type_is_what_load_returns(tmp_path: Path) -> None:
    """`load` of a good file returns a keyring with its versions in order."""
    ring = parse(json.dumps({**GOOD, "keys": {"2": OTHER, "1": KEY}}), "x")
    assert isinstance(ring, Keyring)
    assert ring.versions == (1, 2)
    assert json.loads(ring.to_json()) == GOOD
