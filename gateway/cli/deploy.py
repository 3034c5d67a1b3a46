"""`posthouse deploy`: ready files for systemd, Kubernetes, Compose."""

from __future__ import annotations

import typer


def deploy(
    target: str = typer.Argument(help="systemd, kubernetes or compose"),
    image: str = typer.Option("", help="container image (default: posthouse:VERSION, built from our Dockerfile)"),
    public_url: str = typer.Option("https://hooks.example.com", help="what providers call"),
    replicas: int = typer.Option(2, min=1, max=100, help="processes (kubernetes)"),
    command: str = typer.Option("/opt/posthouse/bin/posthouse", help="where posthouse is installed (systemd)"),
) -> None:
    """Print a ready file: fixed uid, read-only root, probes, secrets from outside, the schema migrated first."""
    from gateway.deploy import Plan, render

    print(render(target, Plan(image, public_url, replicas, command)))
