"""Ready files for running Posthouse elsewhere than by hand: templates, and what they are filled with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from gateway.errors import SetupError

TARGETS = ("systemd", "kubernetes", "compose")
UID = 10001  # of the Dockerfile's user, and of the one that the systemd unit's comment makes
STOP_S = 30  # the process is out within 25 s of SIGTERM

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,250}")  # images, paths, URLs: nothing that a file format reads


@dataclass(frozen=True, slots=True)
class Plan:
    """What differs between deployments."""

    image: str = ""
    public_url: str = "https://hooks.example.com"
    replicas: int = 2
    command: str = "/opt/posthouse/bin/posthouse"


def render(target: str, plan: Plan) -> str:
    """The file for `target`, one of `TARGETS`.    Raises: SetupError, a value that cannot stand in such a file."""
    from jinja2 import Environment, StrictUndefined

    if target not in TARGETS:
        raise SetupError(f"there is no deployment named {target[:40]!r}; there are {', '.join(TARGETS)}")
    if not plan.public_url.startswith("https://"):
        raise SetupError("--public-url must begin with https:// (providers refuse anything else)")
    image = plan.image or f"posthouse:{version('posthouse')}"
    for option, value in (("image", image), ("public-url", plan.public_url), ("command", plan.command.lstrip("/"))):
        if not _PLAIN.fullmatch(value):
            raise SetupError(f"--{option} holds characters that cannot stand in a deploy file")
    text = (files(__name__) / f"{target}.j2").read_text(encoding="utf-8")
    values: dict[str, Any] = {
        "image": image, "public_url": plan.public_url.rstrip("/"), "replicas": plan.replicas, "command": plan.command,
        "uid": UID, "stop_s": STOP_S,
    }  # fmt: skip
    environment = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # noqa: S701  (not HTML)
    return environment.from_string(text).render(values)
