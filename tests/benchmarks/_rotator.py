"""`posthouse keyring …` in a process of its own, in smaller batches and without the wait, for a small rotation.

python -m tests.benchmarks._rotator BATCH SETTLE_S keyring rotate …
"""

from __future__ import annotations

import sys

from gateway.cli import run
from gateway.vault import reseal, rewrap

if __name__ == "__main__":
    rewrap.BATCH = reseal.ROWS = int(sys.argv[1])
    reseal.SETTLE_S = float(sys.argv[2])
    sys.exit(run(sys.argv[3:]))
