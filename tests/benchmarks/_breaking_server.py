"""`posthouse serve` whose Slack and Google have their token endpoints where the benchmark says."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from gateway import serve
from gateway.settings import Settings
from providers import google, slack
from subscriptions import house
from tests.follower.services import moved


async def tell(process: serve.Process) -> None:
    """As the command says it."""
    print(f"posthouse: ready  public={process.public}  private={process.private}", flush=True)


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings()

    async def run() -> None:
        with ExitStack() as stack:
            module: Any
            for module in (google, slack):
                url = os.environ[f"BENCH_{module.FACTS.name.upper()}"]
                stack.enter_context(moved(module, replace(module.OAUTH, token_url=url)))
            await serve.Process(settings, on_ready=tell, upstairs=house.opened).run()

    serve.run(run, settings)


if __name__ == "__main__":
    main()
