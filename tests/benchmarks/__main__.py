"""`make bench`: every benchmark, one after another, then one table of goals."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

import tests.benchmarks
from tests.benchmarks import report


def main() -> int:
    """0 when every benchmark ran, whether or not it met its goals."""
    failed = []
    for info in pkgutil.iter_modules(tests.benchmarks.__path__):
        module = Path(tests.benchmarks.__path__[0]) / f"{info.name}.py"
        if info.name.startswith("_") or "\ndef main(" not in module.read_text():
            continue
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{info.name}"], check=False).returncode:
            failed.append(info.name)
    goals = [
        (path.stem, goal)
        for path in sorted(report.FOLDER.glob("*.json"))
        for goal in json.loads(path.read_text())["goals"]
    ]
    report.show(Console(), goals)
    if failed:
        print(f"did not run: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
