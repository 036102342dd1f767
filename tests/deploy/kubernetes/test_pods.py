"""Rules for every pod of the chart and the overlays: confined, whole, and in step with the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from server.asgi.listening import LAST_WORDS
from server.config.settings import OPTIONS, PREFIX, Settings, resolve_settings
from tests.deploy.kubernetes.made import SOURCES, Made
from tests.deploy.kubernetes.manifests import Manifest, cores, environment, of_kind, selects, settings_text
from tests.deploy.kubernetes.references import Pod, resolve_pod

SECRET = {"api_keys": "a,b", "admin_keys": "c", "metrics_keys": "d"}


@pytest.fixture(params=SOURCES)
def manifests(made: Made, request: pytest.FixtureRequest) -> list[Manifest]:
    return made.manifests(request.param)


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    found = [resolve_pod(one) for one in of_kind(manifests, "Deployment")]
    assert found
    yield from found


def load_settings(manifests: list[Manifest], pod: Pod, folder: Path) -> Settings:
    """What the server in the pod would be told, by its own loader."""
    variables = environment(pod.container, SECRET)
    path = PurePosixPath(variables["ONESEEK_CONFIG"])
    assert "configMap" in pod.mounts[str(path.parent)]
    assert path.name == "oneseek.yaml"
    file = folder / path.name
    file.write_text(settings_text(manifests, pod.spec), encoding="utf-8")
    return resolve_settings(environ=variables, config=file, platform="linux").settings


def test_pods_are_confined(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod.spec["automountServiceAccountToken"] is False
        context = pod.spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()
        assert not [volume for volume in pod.spec["volumes"] if "hostPath" in volume]
        assert pod.container["resources"]["limits"]["memory"]


def test_what_is_written_is_on_a_volume(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        variables = environment(pod.container, SECRET)
        home = PurePosixPath(variables["ONESEEK_HOME"])
        caches = [
            variables[name] for name in ("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR")
        ]
        for path in (home, home / "graphs", "/tmp", *caches):
            assert any(PurePosixPath(path).is_relative_to(place) for place in pod.writable), path


def test_settings_are_the_servers_own(manifests: list[Manifest], tmp_path: Path) -> None:
    for pod in pods(manifests):
        settings = load_settings(manifests, pod, tmp_path)
        assert (settings.host, settings.port) == ("0.0.0.0", pod.ports["http"])
        base = settings.base_model
        assert base is None or str(pod.inside(base).parent) in pod.mounts
        keyed = any(name.startswith(f"{PREFIX}API") for name in environment(pod.container, SECRET))
        assert settings.api_keys == (("a", "b") if keyed else ())


def test_on_cpus_the_threads_are_the_pods_own(manifests: list[Manifest], tmp_path: Path) -> None:
    for pod in pods(manifests):
        threads = load_settings(manifests, pod, tmp_path).threads
        gpus = any("gpu" in name for name in pod.container["resources"]["limits"])
        assert threads == (None if gpus else cores(pod.container["resources"]["requests"]["cpu"]))


def test_keys_come_from_the_secret_and_each_is_a_setting(manifests: list[Manifest]) -> None:
    secret = {option.variable(PREFIX): option.path for option in OPTIONS if option.secret}
    for pod in pods(manifests):
        assert pod.spec["enableServiceLinks"] is False
        for variable in pod.container["env"]:
            if variable["name"] in secret:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert (reference["key"], reference["optional"]) == (secret[variable["name"]], True)


def test_the_grace_is_longer_than_the_drain(manifests: list[Manifest], tmp_path: Path) -> None:
    for pod in pods(manifests):
        settings = load_settings(manifests, pod, tmp_path)
        hook = pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = hook + settings.drain_delay + settings.drain_seconds + LAST_WORDS
        grace = pod.spec["terminationGracePeriodSeconds"]
        assert needed < grace <= needed + 15


def test_names_lead_somewhere(manifests: list[Manifest]) -> None:
    every = list(pods(manifests))
    (service,) = of_kind(manifests, "Service")
    (port,) = service["spec"]["ports"]
    for pod in every:
        assert selects(service["spec"]["selector"], pod.labels)
        assert port["targetPort"] in pod.ports
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert pod.container[name]["httpGet"]["port"] in pod.ports
    for deployment in of_kind(manifests, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert selects(deployment["spec"]["selector"]["matchLabels"], labels)
    for selector in selectors(manifests):
        assert all(selects(selector, pod.labels) for pod in every)
    for policy in of_kind(manifests, "NetworkPolicy"):
        ports = [entry["port"] for rule in policy["spec"]["ingress"] for entry in rule["ports"]]
        assert all(name in pod.ports for name in ports for pod in every)
    for pool in of_kind(manifests, "InferencePool"):
        assert [entry["number"] for entry in pool["spec"]["targetPorts"]] == [every[0].ports["http"]]
    for monitor in of_kind(manifests, "ServiceMonitor"):
        assert selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
        assert [entry["port"] for entry in monitor["spec"]["endpoints"]] == [port["name"]]
    for scaler in (*of_kind(manifests, "HorizontalPodAutoscaler"), *of_kind(manifests, "ScaledObject")):
        names = [one["metadata"]["name"] for one in of_kind(manifests, "Deployment")]
        assert scaler["spec"]["scaleTargetRef"]["name"] in names
    claims = {one["metadata"]["name"] for one in of_kind(manifests, "PersistentVolumeClaim")}
    for pod in every:
        assert set(pod.claims.values()) - claims <= {"models", "adapters", "registry"}, "a user's own claims"


def selectors(manifests: list[Manifest]) -> Iterator[Mapping[str, str]]:
    """Of everything that is about all pods."""
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        yield budget["spec"]["selector"]["matchLabels"]
    for policy in of_kind(manifests, "NetworkPolicy"):
        yield policy["spec"]["podSelector"]["matchLabels"]
    for pool in of_kind(manifests, "InferencePool"):
        yield pool["spec"]["selector"]["matchLabels"]


def test_no_two_deployments_select_the_same_pods(manifests: list[Manifest]) -> None:
    found: list[tuple[Any, Pod]] = [
        (one["spec"]["selector"]["matchLabels"], resolve_pod(one)) for one in of_kind(manifests, "Deployment")
    ]
    for selector, own in found:
        assert [pod for _, pod in found if selects(selector, pod.labels)] == [own]


def test_the_canary_shares_the_registry_and_has_an_image_of_its_own(made: Made) -> None:
    stable, canary = (resolve_pod(one) for one in of_kind(made.manifests("overlay:gpu-canary"), "Deployment"))
    assert stable.claims == canary.claims
    assert stable.container["image"] != canary.container["image"]
    replicas = [
        one["spec"]["replicas"] for one in of_kind(made.manifests("overlay:gpu-canary"), "Deployment")
    ]
    assert replicas == [3, 1]
