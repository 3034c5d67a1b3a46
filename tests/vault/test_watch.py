"""A process follows its keyring's file, and is never worse off for looking."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import files
from gateway.vault.keyring import (
    Aad,
    SealBroken,
    add_version,
    drop_version,
    generate,
    load,
    load_or_create,
    use_version,
)
from gateway.vault.watch import KeyringWatch

HERE = Aad(place="control", owner="x", purpose="test")


@pytest.fixture
def where(tmp_path: Path) -> Settings:
    settings = Settings(_env_file=None, home=tmp_path)
    load_or_create(settings)
    return settings


def test_a_version_that_is_unknown_makes_it_look(where: Settings) -> None:
    """Another process seals under a version that was made a moment ago: the first blob of it opens."""
    mine = load(where)
    KeyringWatch(mine, where)
    theirs = add_version(where)
    assert mine.versions == (1,)
    assert mine.open(theirs.seal(b"new", HERE), HERE) == b"new"
    assert (mine.current, mine.versions) == (2, (1, 2))
    with pytest.raises(SealBroken, match="no key version 3"):
        mine.open(theirs.with_new_version().seal(b"never written", HERE), HERE)


def test_it_takes_over_what_the_file_says(where: Settings) -> None:
    """Added, made current, retired: with each look, in the object that everybody holds."""
    mine = load(where)
    watch = KeyringWatch(mine, where)
    add_version(where, current=False)
    watch.look()
    assert (mine.current, mine.versions) == (1, (1, 2))
    use_version(where, 2)
    watch.look()
    assert mine.current == 2
    drop_version(where, 1)
    watch.look()
    assert mine.versions == (2,)
    with pytest.raises(SetupError, match="current one"):
        drop_version(where, 2)


@pytest.mark.parametrize("trouble", ["gone", "broken", "another's", "open to all", "one key exchanged"])
def test_trouble_with_the_file_changes_nothing(where: Settings, trouble: str) -> None:
    """The keys in memory go on, and the file is taken up again when it is well."""
    mine = load(where)
    watch = KeyringWatch(mine, where)
    watch.look()
    sealed = mine.seal(b"x", HERE)
    path = files.path(where)
    good = add_version(where).to_json()
    if trouble == "gone":
        path.unlink()
    elif trouble == "broken":
        path.write_text(good[:-20])
    elif trouble == "another's":
        path.write_text(generate().with_new_version().to_json())
    elif trouble == "one key exchanged":
        path.write_text(
            good.replace(good.split('"1": "')[1].split('"')[0], generate().to_json().split('"1": "')[1].split('"')[0])
        )
    else:
        path.chmod(0o644)
    for _ in range(2):
        watch.look()
        assert mine.versions == (1,)
        assert mine.open(sealed, HERE) == b"x"
    path.write_text(good)
    path.chmod(0o600)
    watch.look()
    assert mine.versions == (1, 2)


def test_a_keyring_of_the_environment_stays(where: Settings, tmp_path: Path) -> None:
    """There is nothing to look at."""
    ring = generate()
    given = Settings(_env_file=None, home=tmp_path, keyring=SecretStr(ring.to_json()))
    mine = load(given)
    KeyringWatch(mine, given).look()
    with pytest.raises(SealBroken):
        mine.open(ring.with_new_version().seal(b"x", HERE), HERE)
