"""Every manifest is what Kubernetes and the operators take, field by field."""

from __future__ import annotations

import copy
from typing import Any

import yaml

from tests.deploy.kubernetes.made import SOURCES, Made
from tests.deploy.kubernetes.manifests import CHART, VERSIONS, Tools

KINDS: dict[str, tuple[str | int, ...]] = {
    "ConfigMap": (),
    "Deployment": ("spec", "template", "spec", "containers", 0),
    "Service": ("spec", "ports", 0),
    "PersistentVolumeClaim": ("spec",),
    "PodDisruptionBudget": ("spec",),
    "HorizontalPodAutoscaler": ("spec", "metrics", 0),
    "NetworkPolicy": ("spec",),
    "ServiceMonitor": ("spec", "endpoints", 0),
    "ScaledObject": ("spec",),
    "InferencePool": ("spec",),
}
"""Every kind that is deployed, with a place in it for a field that nobody knows."""


def test_manifests_are_valid(made: Made, tools: Tools) -> None:
    everything = [manifest for source in SOURCES for manifest in made.manifests(source)]
    assert not tools.check(everything)


def test_a_field_that_nobody_knows_is_found_in_every_kind(made: Made, tools: Tools) -> None:
    seen = {one["kind"]: one for source in SOURCES for one in made.manifests(source)}
    assert seen.keys() == KINDS.keys()
    manifests = [copy.deepcopy(seen[kind]) for kind in KINDS]
    for manifest, path in zip(manifests, KINDS.values(), strict=True):
        place: Any = manifest
        for key in path:
            place = place[key]
        place["surprise"] = "a"
    found = tools.check(manifests)
    assert {line.partition("/")[0] for line in found} == KINDS.keys()


def test_a_kind_without_a_schema_is_a_problem(tools: Tools) -> None:
    unknown = [
        {"apiVersion": api, "kind": kind, "metadata": {"name": "a"}}
        for api, kind in (
            ("example.com/v1", "Deployment"),
            ("monitoring.coreos.com/v1", "Servicemonitor"),
            ("inference.networking.k8s.io/v1alpha2", "InferencePool"),
        )
    ]
    assert len(tools.check(unknown)) == len(unknown)


def test_the_chart_says_the_oldest_version_that_is_checked() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["kubeVersion"] == f">={VERSIONS[0]}-0"
