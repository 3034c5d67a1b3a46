"""`posthouse simulate`: what it prints, writes and refuses; its picture; the sums behind its users."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import cli
from subscriptions.simulate import fleet as fleets
from subscriptions.simulate import picture, shards
from subscriptions.simulate.uses import Every, Listed, Uses
from tests.benchmarks import simulate

DESCRIBED = fleets.DEFAULT.read_text()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Status, standard output and standard error of one command line."""
    status = cli.run(["simulate", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_it_compares_judges_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a file it is the fleet of `make simulate`; the JSON says what was printed."""
    status, out, err = run(capsys, "--connections", 2000, "--seed", 4, "--out", tmp_path / "new" / "folder")
    assert err == ""
    told = json.loads((tmp_path / "new" / "folder" / "simulate.json").read_text())
    assert (told["connections"], told["days"], told["seed"]) == (2000, 7, 4)
    assert status == int(not all(goal["met"] for goal in told["goals"]))
    assert f"{told['strategies']['cron']['calls answered with tokens']:,}" in out
    assert "refresh tokens dead of idleness" in out
    assert (tmp_path / "new" / "folder" / "simulate.svg").read_text().startswith("<svg ")


def test_make_simulate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The fleet's own seed and those that are asked for, judged one by one, in the form of every benchmark; one picture."""
    monkeypatch.chdir(tmp_path)
    assert simulate.main(["--connections", "300", "--seeds", "7", "8"]) == 0
    told = json.loads(Path("build/bench/simulate.json").read_text())
    seeds = Counter(goal["name"].split(":")[0] for goal in told["goals"])
    assert dict(seeds) == {"seed 5": 6, "seed 7": 6, "seed 8": 6}
    assert told["figures"]["lazy: user calls"] > 1000
    missed = not all(goal["met"] for goal in told["goals"])
    assert simulate.main(["--connections", "300", "--seeds", "7", "8", "--strict"]) == int(missed)
    assert Path("build/simulate/simulate.svg").stat().st_size > 10_000
    assert "picture: build/simulate/simulate.svg" in capsys.readouterr().out


def test_a_missed_goal_is_status_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """People who call twice and go wait for each first call: no policy helps them."""
    described = tmp_path / "fleet.toml"
    described.write_text(DESCRIBED.replace("calls = [20, 200]", "calls = [2, 2]"))
    status, out, _ = run(capsys, described, "--connections", 500, "--days", 3)
    assert status == 1
    assert any("waited" in line and line.endswith("NO") for line in out.splitlines())


FAULTS = [
    ("days = 7", "dayz = 7", "dayz Extra inputs are not permitted"),
    ("days = 7", "days = 0", "days Input should be greater than or equal to 1"),
    ("share = 0.30", "share = 0.31", "the shares of providers do not add up to 1"),
    ("share = 0.12", "share = nan", "share Input should be a finite number"),
    ('name = "google"', 'name = "microsoft"', "two providers have one name"),
    ('usage = "hourly"', 'usage = "daily"', "a provider's usage is not described: daily"),
    ("scheduled = 0.12", "scheduled = 0.9", "usages.hourly scheduled and people are more than 1 together"),
    ("every_s = [300, 3600]", "every_s = [3600, 300]", "usages.hourly every_s goes from 60 s upwards, the smaller number first"),
    ("lasts_s = 7200", 'lasts_s = 7200\nproviders = ["gogle"]', "an outage of a provider that is not described: gogle"),
    ("refresh_idle_s = 15_552_000", "refresh_idle_s = 60", "a refresh token's idle life is longer than an access token's"),
    ("days = 7", "days = ", "is not TOML: Invalid value"),
    (DESCRIBED, "", "describes nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "line"), FAULTS, ids=[fault[2][:30] for fault in FAULTS])
def test_a_faulty_fleet_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, good: str, bad: str, line: str
) -> None:
    described = tmp_path / "fleet.toml"
    described.write_text(DESCRIBED.replace(good, bad, 1))
    status, out, err = run(capsys, described)
    assert (status, out) == (1, "")
    assert line in err
    assert err.startswith(f"posthouse: {described}")
    assert err.count("\n") == 1


def test_what_cannot_be_read_or_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    taken = tmp_path / "taken"
    taken.write_text("")
    for arguments, line in (
        ([tmp_path / "none.toml"], "No such file"), ([tmp_path], "Is a directory"), ([binary], "is not UTF-8"),
        (["--connections", 30_000_000], "connections Input should be less than or equal to 20000000"),
        (["--connections", 10, "--out", taken], "exists"),
    ):  # fmt: skip
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (1, "")
        assert line in err
        assert err.count("\n") == 1
    assert run(capsys, "--connections", 0)[0] == 2


@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_the_picture_is_svg_that_stands_alone(theme: str) -> None:
    """Five charts with titles, three strategies, the outage; nothing is fetched by whoever looks at it."""
    fleet = fleets.read(fleets.DEFAULT).sized(300, days=3)
    drawn = picture.draw(fleet, shards.run(fleet, cores=1), theme)  # type: ignore[arg-type]
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum("per minute" in text or "minute by minute" in text for text in texts) == 2
    assert {"Wednesday", "outage", "mean", "1.5 x mean"} <= set(texts)
    lines = [node.get("class") for node in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [lines.count(f"line {name}") for name in ("cron", "lazy", "hybrid")] == [4, 4, 5]
    assert ("prefers-color-scheme" in drawn) == (theme == "auto")
    assert "href" not in drawn
    assert "nan" not in drawn


@pytest.mark.parametrize("days", [1, 9])
def test_a_picture_without_an_outage_and_of_any_length(days: int) -> None:
    fleet = fleets.read(fleets.DEFAULT).sized(20, days=days).model_copy(update={"outages": []})
    ElementTree.fromstring(picture.draw(fleet, shards.run(fleet, cores=1)))  # noqa: S314 - our own


MOMENTS = st.floats(-1e5, 1e5)


@given(phase=st.floats(0, 100), step=st.floats(60, 5000), start=MOMENTS, length=st.floats(0, 1e5))
def test_a_schedules_sums_are_its_moments(phase: float, step: float, start: float, length: float) -> None:
    _same(Every(phase, step), [phase + n * step for n in range(-1700, 3400)], start, start + length)


@given(moments=st.lists(MOMENTS, max_size=30), start=MOMENTS, length=st.floats(0, 1e5))
def test_peoples_sums_are_their_moments(moments: list[float], start: float, length: float) -> None:
    _same(Listed(moments), sorted(moments), start, start + length)


def _same(uses: Uses, moments: list[float], start: float, end: float) -> None:
    """By looking at each. A rounding's breadth at the edges is nobody's business."""
    near = any(abs(one - edge) < 1e-6 for one in moments for edge in (start, end))
    if near:
        return
    after = next((one for one in moments if one >= start), float("inf"))
    before = next((one for one in reversed(moments) if one <= start), None)
    assert uses.after(start) == pytest.approx(after)
    assert uses.before(start) == (None if before is None else pytest.approx(before))
    assert uses.count(start, end) == sum(start <= one < end for one in moments)
