"""`posthouse.toml`: read whole or refused in one line that names every fault and quotes no secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import SetupError
from gateway.integrations.declare import read
from gateway.integrations.wanted import Wanted
from providers.registry import Provider
from tests.integrations.conftest import PROVIDERS
from tests.vault.test_keyring import assert_without

SECRET = "s3cr3t-value-of-somebody"
ENVIRON = {"NEW": "newest-of-all", "SHORT": "tny", "EMPTY": ""}

WHOLE = """
[integrations.my-posty]
provider = "posty"
client_id = "123.456"
signing_secrets = [{env = "NEW"}, {file = "old.txt"}]
client_secrets = [{env = "CLIENT"}]
unattributed = "drop"
[integrations.my-posty.settings]
audience = "us"

[integrations.bare]
provider = "plain"
"""


def said(tmp_path: Path, text: str | bytes, **environ: str) -> list[Wanted]:
    file = tmp_path / "posthouse.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(file, providers=PROVIDERS, environ=environ)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    """Secrets come from the environment and from files beside the file, newest first; the rest has defaults."""
    (tmp_path / "old.txt").write_bytes(b"old one\n")
    posty, bare = said(tmp_path, WHOLE, NEW="new one", CLIENT="client")
    assert posty == Wanted(
        name="my-posty",
        provider="posty",
        client_id="123.456",
        unattributed="drop",
        settings={"audience": "us"},
        secrets={"signing_secrets": (b"new one", b"old one"), "client_secrets": (b"client",)},
    )
    assert bare == Wanted(name="bare", provider="plain", secrets={"signing_secrets": (), "client_secrets": ()})
    assert "new one" not in repr(posty)


@pytest.mark.parametrize(
    ("raw", "secret"),
    [(b"abcd\n", b"abcd"), (b"abcd\r\n", b"abcd"), (b"abcd\n\n", b"abcd\n"), (b" ab\xff ", b" ab\xff ")],
)
def test_one_newline_at_the_end_of_a_secret_file_is_not_part_of_it(tmp_path: Path, raw: bytes, secret: bytes) -> None:
    """Editors add one; anything else is the secret's own."""
    (tmp_path / "old.txt").write_bytes(raw)
    text = '[integrations.x]\nprovider = "plain"\nsigning_secrets = [{file = "old.txt"}]'
    assert said(tmp_path, text)[0].secrets["signing_secrets"] == (secret,)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            f'signing_secrets = ["{SECRET}"]',
            'signing_secrets.0 must be {env = "NAME"}, {file = "/path"} or {vault = "mount/path#field"}, never',
        ),
        (f'signing_secrets = "{SECRET}"', "signing_secrets must be a list, newest first"),
        ('signing_secrets = {env = "NEW"}', "signing_secrets must be a list, newest first"),
        (f'signing_secrets = [{{value = "{SECRET}"}}]', "signing_secrets.0.value: Extra inputs are not permitted"),
        ('signing_secrets = [{env = "NEW", file = "x"}]', "signing_secrets.0 must be {env"),
        ("signing_secrets = [{}]", "signing_secrets.0 must be {env"),
        ("signing_secrets = [{env = 5}]", "signing_secrets.0.env: Input should be a valid string"),
        ('signing_secrets = [{env = "NONE"}]', "the environment variable NONE, which is not set"),
        ('signing_secrets = [{env = "EMPTY"}]', "the environment variable EMPTY, which is not set"),
        (f'signing_secrets = [{{env = "{SECRET}"}}]', "environment variable (no usual name), which is not set"),
        ('signing_secrets = [{file = "none.txt"}]', "none.txt, which cannot be read: No such file"),
        ('signing_secrets = [{file = "."}]', "which cannot be read: Is a directory"),
        ('signing_secrets = [{file = "a\\u0000b"}]', "which cannot be read: not a path"),
        ('signing_secrets = [{file = "empty.txt"}]', "empty.txt, which is empty"),
        ('signing_secrets = [{file = "long.txt"}]', "signing_secrets.0 is longer than 16384 bytes"),
        ('signing_secrets = [{env = "SHORT"}]', "signing_secrets.0 is shorter than 4 bytes"),
        ('signing_secrets = [{env = "NEW"}, {env = "NEW"}]', "signing_secrets hold the same secret twice"),
        ("signing_secrets = [" + '{env = "NEW"},' * 9 + "]", "signing_secrets are more than 8"),
        ('client_id = ""', "client_id must be 1 to 1000 printable characters"),
        ('region = "moon"', "region is not a region of this deployment (default)"),
        ('unattributed = "burn"', "unattributed: Input should be 'keep' or 'drop'"),
        ("colour = 1", "colour: Extra inputs are not permitted"),
        ("[integrations.x.settings]\ncolour = 1", "settings.colour Extra inputs are not permitted"),
    ],
)
def test_a_fault_is_named_and_no_secret_is_quoted(tmp_path: Path, lines: str, says: str) -> None:
    """One line; neither it nor anything behind it holds a secret, set or misplaced."""
    (tmp_path / "empty.txt").write_bytes(b"\n")
    (tmp_path / "long.txt").write_bytes(b"x" * 20_000)
    text = f'[integrations.x]\nprovider = "plain"\n{lines}'
    with pytest.raises(SetupError) as caught:
        said(tmp_path, text, **ENVIRON)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_without(caught.value, SECRET, *ENVIRON.values())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff", "is not UTF-8"),
        (f'signing = "{SECRET}'.encode(), "is not TOML"),
        (f"[integrations.x]\nsigning_secrets = [{SECRET}]".encode(), "is not TOML"),
        (b"x = " + b"9" * 5000, "is not TOML that can be read"),
        (b"x = " + b"[" * 20_000, "is not TOML that can be read"),
        (b"#" * 1_100_000, "is longer than"),
        (b"colour = 1", "colour: Extra inputs"),
        (b"integrations = 5", "integrations: Input should be a valid dictionary"),
        (f'[integrations]\nx = "{SECRET}"'.encode(), "integrations.x: Input should be a valid dictionary"),
        (b"[integrations.x]", "[integrations.x] provider: Field required"),
        (b'[integrations.x]\nprovider = "nobody"', "provider is not known: one of clienty, plain, posty"),
        (b'[integrations.X]\nprovider = "plain"', "name must be 1 to 63 of a-z"),
        (b'[integrations."a\\nb"]\nprovider = "plain"', r"[integrations.'a\nb'] name must be"),
        (b'[integrations.x]\nprovider = "posty"', "settings.audience Field required"),
        (b'[integrations.x]\nprovider = "posty"\nsettings.audience = "a\\u0000"', "cannot be stored"),
        (b'[integrations.x]\nprovider = "posty"\nsettings.audience = "a"\nsettings.share = nan', "cannot be stored"),
        (b'[integrations.x]\nprovider = "clienty"\nsigning_secrets = [{env = "A"}]', "signs with the client secret"),
        (b'[integrations.x]\nprovider = "plain"\n[integrations.x]', "is not TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: bytes, says: str) -> None:
    """Whatever the bytes: one line, no traceback, no secret."""
    with pytest.raises(SetupError) as caught:
        said(tmp_path, text, A="abcd")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_without(caught.value, SECRET)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    """Nobody wants to find them one by one."""
    text = '[integrations.x]\nprovider = "nobody"\nregion = "moon"\n[integrations.y]\nprovider = "posty"'
    with pytest.raises(SetupError, match=r"\[integrations.x\] region .*; .* provider .*; \[integrations.y\] settings"):
        said(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path, providers: Mapping[str, Provider]) -> None:
    """And so is a folder in its place."""
    with pytest.raises(SetupError, match=r"posthouse.toml cannot be read: No such file"):
        read(tmp_path / "posthouse.toml", providers=providers, environ={})
    with pytest.raises(SetupError, match="cannot be read: Is a directory"):
        read(tmp_path, providers=providers, environ={})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(noise=st.text(max_size=60) | st.sampled_from(WHOLE.splitlines()), at=st.integers(0, len(WHOLE)))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, noise: str, at: int) -> None:
    """No damage leads to anything but SetupError."""
    (tmp_path / "old.txt").write_bytes(b"old one\n")
    told = ""
    try:
        said(tmp_path, WHOLE[:at] + noise + WHOLE[at:], NEW="new one", CLIENT="client")
    except SetupError as error:
        told = str(error)
    assert "\n" not in told
    assert "new one" not in told
