"""The manifests in `deploy/kubernetes`: valid for Kubernetes, hardened, and true to the service."""

from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fastapi import FastAPI

from app.__main__ import VERBS
from app.settings import Settings
from app.web import health
from tests.processes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
SETTINGS = dict(
    literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"]
)


def pods() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, pod and container of each workload."""
    for manifest in MANIFESTS:
        if pod := manifest["spec"].get("template", {}).get("spec"):
            (container,) = pod["containers"]
            yield manifest["metadata"]["name"], pod, container


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_manifests_match_the_published_schemas(version: str) -> None:
    assert {file.name for file in FOLDER.iterdir()} == {
        "kustomization.yaml", *KUSTOMIZATION["resources"]
    }  # fmt: skip
    for manifest in MANIFESTS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_pods_are_hardened_and_read_secrets_from_files() -> None:
    assert {name for name, _, _ in pods()} == {"migrate", "serve", "worker"}
    for name, pod, container in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "env" not in container
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == SETTINGS["SECRETS_DIR"]
        assert mount["name"] == pod["volumes"][0]["name"]
        assert pod["volumes"][0]["secret"]["secretName"] == "receiver"


def test_manifests_name_what_exists() -> None:
    verbs = {verb.__name__ for verb in VERBS}
    app = FastAPI()
    app.include_router(health.router)
    paths = set(app.openapi()["paths"])
    assert {name.lower() for name in SETTINGS} <= Settings.model_fields.keys()
    for name, _, container in pods():
        assert container["args"][0] in verbs
        assert container["image"] == KUSTOMIZATION["images"][0]["name"]
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for key, probe in container.items():
            if key.endswith("Probe"):
                assert probe["httpGet"]["path"] in paths, name
                assert probe["httpGet"]["port"] in ports
        if name == "serve":
            assert ports == {"http": Settings.model_fields["port"].default}
        if name == "worker":
            assert ports == {"metrics": int(SETTINGS["WORKER_METRICS_PORT"])}


def test_a_pod_ends_after_requests_have_stopped_and_before_it_is_killed() -> None:
    """First the network forgets it, then the server drains (`app/web/server.py`)."""
    (serve,) = [(pod, container) for name, pod, container in pods() if name == "serve"]
    pod, container = serve
    seconds = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= seconds + 10
    budgets = {m["metadata"]["name"]: m for m in MANIFESTS if m["kind"] == "PodDisruptionBudget"}
    for manifest in MANIFESTS:
        if manifest["kind"] == "Deployment":
            budget = budgets[manifest["metadata"]["name"]]["spec"]
            assert budget["selector"] == manifest["spec"]["selector"]
            assert budget["minAvailable"] < manifest["spec"]["replicas"]
