"""Rendering the chart, checking manifests, and finding what is in them."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy" / "helm" / "oneseek"
HELPER = Path(__file__).with_name("helper.py")
NAMESPACE = "prod"
VERSIONS = ("1.30.0", "1.37.0")
"""The oldest that the chart says it runs on, and the newest whose schemas are known."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What Helm makes of the chart and some values."""

    manifests: list[Manifest]
    notes: str
    lint: list[Any]


class ChartRefusedError(Exception):
    """Helm refused the values; its message."""


@dataclass(frozen=True, slots=True)
class Tools:
    """`helper.py` in the environment of `environment.py`."""

    python: Path

    def render(self, values: Mapping[str, Any], name: str = "demo") -> Rendering:
        """The chart with `values`. Raises `ChartRefusedError`."""
        request = {"chart": str(CHART), "values": values, "name": name, "namespace": NAMESPACE}
        answer = self._ask(request)
        if "error" in answer:
            raise ChartRefusedError(answer["error"])
        return Rendering(**answer)

    def check(self, manifests: Sequence[Manifest]) -> list[str]:
        """Everything that is wrong with them; what no schema covers is wrong too."""
        found = self._ask({"manifests": list(manifests), "versions": VERSIONS})["problems"]
        return [
            f"{title(manifest)}: {problem}"
            for manifest, problems in zip(manifests, found, strict=True)
            for problem in (["no schema covers its kind"] if problems is None else problems)
        ]

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [str(self.python), str(HELPER)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def only(manifests: Sequence[Manifest], kind: str) -> Manifest:
    (found,) = of_kind(manifests, kind)
    return found


def containers(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Pod spec and container of each Deployment."""
    for deployment in of_kind(manifests, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield pod, container


def environment(container: Manifest, secret: Mapping[str, str]) -> dict[str, str]:
    """The container's variables as the kubelet makes them, with `secret` as the keys' Secret."""
    found: dict[str, str] = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        reference = source.get("secretKeyRef")
        if "resourceFieldRef" in source:
            kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
            found[variable["name"]] = str(cores(container["resources"][kind][name]))
        elif reference is None:
            found[variable["name"]] = variable["value"]
        elif reference["name"] == "oneseek-keys" and reference["key"] in secret:
            found[variable["name"]] = secret[reference["key"]]
    return found


def cores(quantity: str) -> int:
    """A quantity of CPU in whole cores, rounded up as the kubelet does with a divisor of 1."""
    return math.ceil(float(quantity.removesuffix("m")) / (1000 if quantity.endswith("m") else 1))


def settings_text(manifests: Sequence[Manifest], pod: Manifest) -> str:
    """oneseek.yaml of the ConfigMap that a pod mounts."""
    (name,) = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    (data,) = [one["data"] for one in of_kind(manifests, "ConfigMap") if one["metadata"]["name"] == name]
    return data["oneseek.yaml"]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()
