"""What `posthouse deploy` and `posthouse alerts` print is what the tools that read it want."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import metrics
from gateway.alerts import ALERTS, rules
from gateway.deploy import STOP_S, UID, Plan, render
from gateway.errors import SetupError
from gateway.serve import OUT_S

ROOT = Path(__file__).parents[2]


def test_the_systemd_unit_stops_in_time_and_runs_without_privileges() -> None:
    """It reads as an INI file; keys that repeat are lists there."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # documented way to keep the case of keys
    parser.read_string(render("systemd", Plan(command="/usr/bin/posthouse")))
    service = parser["Service"]
    assert service["ExecStartPre"] == "/usr/bin/posthouse migrate"
    assert service["ExecStart"] == "/usr/bin/posthouse serve"
    assert int(service["TimeoutStopSec"]) > OUT_S
    assert service["NoNewPrivileges"] == "true"
    assert service["ProtectSystem"] == "strict"
    assert parser["Install"]["WantedBy"] == "multi-user.target"


def test_the_kubernetes_manifests_say_what_a_cluster_must_know() -> None:
    """Fixed uid, read-only root, probes, migrated first, time to drain, two Services."""
    plan = Plan(image="registry.local/ph:1", public_url="https://h.example", replicas=3)
    documents = list(yaml.safe_load_all(render("kubernetes", plan)))
    kinds = [document["kind"] for document in documents]
    assert kinds == ["ServiceAccount", "StatefulSet", "PodDisruptionBudget", "Service", "Service"]
    spec = documents[1]["spec"]
    assert spec["replicas"] == 3
    pod = spec["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > OUT_S
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsNonRoot"]) == (UID, True)
    container, migrating = pod["containers"][0], pod["initContainers"][0]
    assert (migrating["args"], container["args"]) == (["migrate"], ["serve"])
    for each in (container, migrating):
        assert each["image"] == "registry.local/ph:1"
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        assert each["securityContext"]["allowPrivilegeEscalation"] is False
        assert {"name": "POSTHOUSE_PUBLIC_URL", "value": "https://h.example"} in each["env"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    secret = next(each for each in container["env"] if each["name"] == "POSTHOUSE_DATABASE_URL")
    assert "secretKeyRef" in secret["valueFrom"]
    [claim] = spec["volumeClaimTemplates"]
    mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert mounted["/var/lib/posthouse"] == claim["metadata"]["name"]  # the image's POSTHOUSE_HOME: the spool is in it
    assert [document["metadata"]["name"] for document in documents[3:]] == ["posthouse-public", "posthouse-private"]


def test_the_compose_file_migrates_before_it_serves() -> None:
    """And publishes its ports on loopback alone."""
    whole = yaml.safe_load(render("compose", Plan()))
    services: dict[str, Any] = whole["services"]
    serving, migrating = services["posthouse"], services["migrate"]
    assert migrating["command"] == ["migrate"]
    assert serving["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert serving["read_only"] is True
    assert serving["volumes"] == ["state:/var/lib/posthouse"]
    assert "state" in whole["volumes"]
    assert serving["user"] == f"{UID}:{UID}"
    assert serving["stop_grace_period"] == f"{STOP_S}s"
    assert all(port.startswith("127.0.0.1:") for port in serving["ports"])


@pytest.mark.parametrize(
    "plan",
    [
        Plan(public_url="http://h.example"),
        Plan(public_url="https://h.example\n- evil: 1"),
        Plan(image="a b"),
        Plan(command='/x"; rm'),
    ],
)
def test_a_value_that_would_break_out_of_the_file_is_refused(plan: Plan) -> None:
    """Values are put into the files as they are, so only plain ones may be."""
    with pytest.raises(SetupError, match="--"):
        render("kubernetes", plan)


def test_the_image_runs_as_the_uid_that_the_deploy_files_name() -> None:
    """One number, in two places that cannot import each other."""
    assert f"USER {UID}:{UID}" in (ROOT / "Dockerfile").read_text()


def test_every_alert_asks_for_metrics_that_there_are() -> None:
    """A rule over a misspelt metric never fires, and nobody notices."""
    exported = {sample.name for metric in metrics.REGISTRY.collect() for sample in metric.samples}
    families = {metric.name for metric in metrics.REGISTRY.collect()}
    known = exported | families | {f"{name}_{end}" for name in families for end in ("total", "bucket", "count", "sum")}
    for alert in ALERTS:
        asked = set(re.findall(r"posthouse_[a-z_]+", alert.expr))
        assert asked <= known, alert.name
        assert asked or "up{" in alert.expr


def test_every_alert_says_what_causes_it_and_what_to_do_first() -> None:
    """The printed rules are YAML that holds all of it."""
    [group] = yaml.safe_load(rules())["groups"]
    assert [rule["alert"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    for rule in group["rules"]:
        assert set(rule["annotations"]) == {"summary", "cause", "first_step"}
        assert all(rule["annotations"].values())
        assert re.fullmatch(r"\d+[mhd]", rule["for"])
