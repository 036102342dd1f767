"""Every chart and overlay under test, each rendered once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes.manifests import CHART, NAMESPACE, ROOT, Manifest, Rendering, Tools

KUSTOMIZE = ROOT / "deploy" / "kustomize"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*.yaml"))}
OVERLAYS = ("cpu", "gpu", "gpu-canary")
COMPONENTS = ("servicemonitor", "keys", "hpa", "keda", "inferencepool")
"""In an order that works: `keys` changes what `servicemonitor` brings."""
CHARTS = ("chart:default", *(f"chart:{name}" for name in VALUES))
SOURCES = (*CHARTS, *(f"overlay:{name}" for name in OVERLAYS), "overlay:everything")


class Made:
    """What the chart makes of each file of values, and what is made of each overlay."""

    def __init__(self, tools: Tools, folder: Path) -> None:
        self._tools = tools
        self._folder = folder
        self._charts: dict[str, Rendering] = {}
        self._overlays: dict[str, list[Manifest]] = {}

    def chart(self, name: str) -> Rendering:
        if name not in self._charts:
            self._charts[name] = self._tools.render(load_values(name))
        return self._charts[name]

    def manifests(self, source: str) -> list[Manifest]:
        """Of `chart:NAME` or `overlay:NAME`."""
        kind, _, name = source.partition(":")
        if kind == "chart":
            return self.chart(name).manifests
        if name not in self._overlays:
            whole = name == "everything"
            folder = overlay_with_everything(self._folder) if whole else KUSTOMIZE / "overlays" / name
            self._overlays[name] = kustomize(folder)
        return self._overlays[name]


def load_values(name: str) -> dict[str, Any]:
    return {} if name == "default" else yaml.safe_load(VALUES[name].read_text(encoding="utf-8"))


def kustomize(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a folder. Skips the test if there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here: the overlays in deploy/kustomize are not built and not proven")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def overlay_with_everything(folder: Path) -> Path:
    """A folder as a user would write it: the canary's overlay with every component."""
    parts = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(KUSTOMIZE / "overlays" / "gpu-canary", folder)],
        "components": [os.path.relpath(KUSTOMIZE / "components" / name, folder) for name in COMPONENTS],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return folder
