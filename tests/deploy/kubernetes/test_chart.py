"""The chart: lint, what it refuses, and that every template is rendered by a file of values."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes.made import CHARTS, Made
from tests.deploy.kubernetes.manifests import CHART, ChartRefusedError, Tools, environment, of_kind, only
from tests.deploy.kubernetes.references import resolve_pod
from tests.deploy.kubernetes.settings_names import SCHEMA, with_names

NAMES = [name.removeprefix("chart:") for name in CHARTS]


@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing(made: Made, name: str) -> None:
    assert not made.chart(name).lint


def test_every_template_is_rendered(made: Made) -> None:
    rendered = {one["kind"] for name in NAMES for one in made.chart(name).manifests}
    written = {
        line.partition(": ")[2]
        for path in (CHART / "templates").glob("*.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("kind: ")
    }
    assert written == rendered


def test_the_schema_lists_the_values() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"].keys() - {"global"} == values.keys()
    assert json.dumps(schema).count('"additionalProperties": false') > 10


def test_the_schema_has_the_servers_settings() -> None:
    """If not: python -m tests.deploy.kubernetes.settings_names"""
    text = SCHEMA.read_text(encoding="utf-8")
    assert text == with_names(text)


def test_chart_and_package_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((CHART.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == project["project"]["version"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"gpu": {"counts": 1}}, "counts"),
        ({"gpu": {"count": "two"}}, "gpu/count"),
        ({"port": 80}, "port"),
        ({"resources": {"limits": {"memory": None}}}, "resources/limits"),
        ({"image": {"digest": "sha256:12"}}, "image/digest"),
        ({"autoscaling": {"kind": "vpa"}}, "autoscaling/kind"),
        ({"config": {"host": "127.0.0.1"}}, "config.host"),
        ({"config": {"port": 8001}}, "config.port"),
        ({"config": {"home": "/srv"}}, "config.home"),
        ({"config": {"api_keys": ["a"]}}, "config.api_keys"),
        ({"config": {"admin_keys": ["a"]}}, "config.admin_keys"),
        ({"config": {"metrics_keys": ["a"]}}, "config.metrics_keys"),
        ({"config": {"drain_second": 5}}, "drain_second"),
        ({"config": {"drain_seconds": "long"}}, "config/drain_seconds"),
        ({"config": {"adapter_urls": ["s3://a/b"]}}, "networkPolicy.egress"),
        (
            {"config": {"external_models": {"a": {"url": "https://a/v1", "model": "b"}}}},
            "networkPolicy.egress",
        ),
        ({"autoscaling": {"kind": "hpa", "minReplicas": 9}}, "autoscaling.minReplicas"),
        (
            {"replicas": 2, "storage": {"home": {"size": "1Gi", "accessModes": ["ReadWriteOnce"]}}},
            "storage.home.accessModes",
        ),
        (
            {
                "autoscaling": {"kind": "keda"},
                "storage": {"home": {"existingClaim": "a", "accessModes": ["ReadWriteOnce"]}},
            },
            "storage.home.accessModes",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(tools: Tools, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ChartRefusedError) as error:
        tools.render(values)
    assert named in str(error.value).replace(".", "/") or named in str(error.value)


def test_claims_are_made_or_named(made: Made) -> None:
    manifests = made.chart("gpu").manifests
    claims = {one["metadata"]["name"]: one for one in of_kind(manifests, "PersistentVolumeClaim")}
    assert set(claims) == {"demo-oneseek-home", "demo-oneseek-cache"}
    assert claims["demo-oneseek-home"]["spec"]["storageClassName"] == "fast"
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in claims.values())
    pod = resolve_pod(only(manifests, "Deployment"))
    assert pod.claims == {"models": "models", "home": "demo-oneseek-home", "cache": "demo-oneseek-cache"}


def test_one_registry_that_cannot_be_shared_is_never_held_by_two_pods(made: Made) -> None:
    strategies = {
        name: only(made.chart(name).manifests, "Deployment")["spec"]["strategy"]["type"] for name in NAMES
    }
    assert strategies["gpu"] == "Recreate"
    assert {strategies[name] for name in NAMES if name != "gpu"} == {"RollingUpdate"}


def test_pods_restart_for_settings_and_not_for_a_new_chart(made: Made, tools: Tools) -> None:
    before = only(made.chart("default").manifests, "Deployment")
    after = only(tools.render({"config": {"log_level": "debug"}}).manifests, "Deployment")
    assert before["spec"]["template"] != after["spec"]["template"]
    assert "helm.sh/chart" not in json.dumps(before["spec"]["template"])


def test_gpus_are_asked_for(made: Made) -> None:
    pod = resolve_pod(only(made.chart("gpu").manifests, "Deployment"))
    assert pod.container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": 2}
    assert pod.mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]
    assert pod.container["image"].partition("@")[2].startswith("sha256:")
    plain = resolve_pod(only(made.chart("default").manifests, "Deployment"))
    assert plain.container["resources"]["limits"] == {"memory": "4Gi"}


@pytest.mark.parametrize("name", NAMES)
def test_the_notes_name_what_there_is(made: Made, name: str) -> None:
    rendering = made.chart(name)
    service = only(rendering.manifests, "Service")
    (port,) = service["spec"]["ports"]
    assert f"service/{service['metadata']['name']} 8000:{port['port']}" in rendering.notes
    assert f"deployment/{only(rendering.manifests, 'Deployment')['metadata']['name']}" in rendering.notes


@pytest.mark.parametrize(
    ("values", "threads"),
    [
        ({"resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}, "2"),
        ({"resources": {"limits": {"cpu": "4", "memory": "1Gi"}}}, "4"),
        ({"config": {"threads": 3}}, None),
        ({"gpu": {"count": 1}}, None),
    ],
)
def test_threads_follow_the_cpus(tools: Tools, values: dict[str, Any], threads: str | None) -> None:
    pod = resolve_pod(only(tools.render(values).manifests, "Deployment"))
    assert environment(pod.container, {}).get("ONESEEK_THREADS") == threads


def test_autoscaling_leaves_the_number_of_pods_alone(made: Made) -> None:
    assert "replicas" not in only(made.chart("hpa").manifests, "Deployment")["spec"]
    assert "replicas" not in only(made.chart("gateway").manifests, "Deployment")["spec"]
    assert only(made.chart("cpu").manifests, "Deployment")["spec"]["replicas"] == 2
