"""README and ARCHITECTURE say what is true: tables made from the code, commands and routes that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from gateway.connections.machine import TABLE
from gateway.connections.states import STATES, fold
from gateway.settings import Settings
from gateway.web.app import ROUTES
from tests import drawings

README, ARCHITECTURE = Path("README.md"), Path("ARCHITECTURE.md")
DRAWN = ((README, "telling", drawings.telling), (ARCHITECTURE, "machine", drawings.machine),
         (ARCHITECTURE, "folding", drawings.folding))  # fmt: skip
SIZING = ("bare uvicorn/s", "gateway/s", "one INSERT a request/s", "p50 ms", "p99 ms", "mean batch", "commits/s")


def settings_table() -> str:
    """The configuration table, from the class that reads it."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, info in Settings.model_fields.items():
        default: Any = info.default if info.default is not PydanticUndefined else None
        shown = "" if default is None else f"`{default}`"
        rows.append(f"| `POSTHOUSE_{name.upper()}` | {shown} | {info.description} |")
    return "\n".join(rows)


def between(text: str, name: str) -> str:
    """What stands between the markers `<!-- name … -->` and `<!-- /name -->`."""
    match = re.search(rf"<!-- {name}[^>]*-->\n(.*?)\n?<!-- /{name} -->", text, re.DOTALL)
    assert match, name
    return match[1]


def replaced(text: str, name: str, inner: str) -> str:
    return re.sub(
        rf"(<!-- {name}[^>]*-->\n).*?(<!-- /{name} -->)", lambda m: m[1] + inner + "\n" + m[2], text, flags=re.DOTALL
    )


def test_the_configuration_table_is_the_settings_class() -> None:
    """A setting that is added or changed shows in README."""
    assert between(README.read_text(), "settings") == settings_table()


@pytest.mark.parametrize(("file", "name", "draw"), DRAWN, ids=[name for _, name, _ in DRAWN])
def test_what_is_drawn_from_the_code_is_not_old(file: Path, name: str, draw: Callable[[], str]) -> None:
    """The machine's picture, the fold, what each provider can tell: `python -m tests.test_docs` draws them anew."""
    assert between(file.read_text(), name) == draw()


def test_the_picture_shows_every_move() -> None:
    """Each pair of the table that moves stands on the edge between its states, and nothing else does."""
    edges = re.findall(r"^    (\w+) --> (\w+): (.+)$", between(ARCHITECTURE.read_text(), "machine"), re.MULTILINE)
    shown = {(before, signal): after for before, after, signals in edges for signal in signals.split(", ")}
    assert shown == {
        (state, signal): to for state, row in TABLE.items() for signal, to in row.items() if to not in (None, state)
    }


def test_grants_may_be_folded_one_after_the_other() -> None:
    """So the picture of two says all: of any three, in whatever order, it comes to the same."""
    for three in product([state for state in STATES if state != "closed"], repeat=3):
        assert fold(three) == fold([fold(three[:2]), three[2]]), three


def test_every_path_in_readme_is_a_route() -> None:
    """No curl line that ends in a 404."""
    templates = {re.sub(r"\{[^}]+\}", "[^/]+", route.path) for route in ROUTES}
    for path in re.findall(r"\$PRIVATE(/v1/(?:[a-z/0-9]|\$[A-Z]+)+)", README.read_text()):
        assert any(re.fullmatch(template, path.replace("$", "")) for template in templates), path


def test_the_python_example_is_python() -> None:
    """It is short, and it compiles; tests/client runs the same calls."""
    example = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert example
    assert len(example[1].splitlines()) <= 15
    compile(example[1], "README.md", "exec")


def test_every_room_that_architecture_names_exists() -> None:
    """The map is of this house."""
    text = Path("ARCHITECTURE.md").read_text()
    for name in set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)):
        assert Path(name).exists() or Path("gateway", name).exists(), name


def main() -> None:
    """Write the made parts of README and ARCHITECTURE anew."""
    for file, name, draw in DRAWN:
        file.write_text(replaced(file.read_text(), name, draw()))
    text = replaced(README.read_text(), "settings", settings_table())
    bench = Path("build/bench/ingest.json")
    if bench.exists():
        report = json.loads(bench.read_text())
        figures = report["figures"]
        full = next((key for key in figures if "with" in key), None)
        rows = [
            "| figure | value |",
            "|---|---|",
            f"| machine | {report['machine']['cores']} cores, {report['machine']['cpu']} |",
        ]
        rows += [f"| {key} | {figures[key]:,.1f} |" for key in (*SIZING, *([full] if full else []))]
        text = replaced(text, "sizing", "\n".join(rows))
    README.write_text(text)


if __name__ == "__main__":
    main()
