"""docs/kubernetes.md: its values render, its overlays build, its commands name what there is."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.settings import OPTIONS
from tests.deploy.kubernetes.made import kustomize
from tests.deploy.kubernetes.manifests import CHART, ROOT, Manifest, Tools, of_kind, only
from tests.deploy.kubernetes.references import resolve_pod

PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n# (\w+): (\S+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def blocks(kind: str) -> list[Any]:
    return [yaml.safe_load(text) for found, _, text in YAML if found == kind]


def test_every_block_says_what_it_is() -> None:
    assert len(YAML) == PAGE.count("```yaml")
    assert {kind for kind, _, _ in YAML} == {"helm", "kustomize", "adapter", "other"}
    assert PAGE.count("```") == 2 * (len(YAML) + PAGE.count("```console"))


def test_values_render_and_the_overlay_builds(tools: Tools, tmp_path: Path) -> None:
    renderings = [tools.render(values) for values in blocks("helm")]
    assert not [finding for rendering in renderings for finding in rendering.lint]
    overlaid = build_overlay(tmp_path)
    assert not tools.check([*overlaid, *(one for rendering in renderings for one in rendering.manifests)])
    assert {one["metadata"]["namespace"] for one in overlaid} == {"models"}
    pod = resolve_pod(only(overlaid, "Deployment"))
    assert pod.container["image"] == "registry.example.com/oneseek:cuda"
    assert "authorization" in only(overlaid, "ServiceMonitor")["spec"]["endpoints"][0]


def build_overlay(folder: Path) -> list[Manifest]:
    """The page's own, at the path that it says."""
    ((path, text),) = [(path, text) for kind, path, text in YAML if kind == "kustomize"]
    shutil.copytree(ROOT / "deploy" / "kustomize", folder / "deploy" / "kustomize")
    file = folder / path
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return kustomize(file.parent)


def test_the_rule_is_about_the_metric_that_scales(tools: Tools) -> None:
    ((rule,),) = [block["rules"] for block in blocks("adapter")]
    scaler = only(tools.render({"autoscaling": {"kind": "hpa"}}).manifests, "HorizontalPodAutoscaler")
    (metric,) = scaler["spec"]["metrics"]
    assert rule["seriesQuery"].partition("{")[0] == metric["pods"]["metric"]["name"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_what_there_is(tools: Tools, command: str) -> None:
    program, verb, *words = shlex.split(command)
    if program == "helm":
        assert verb in ("install", "upgrade")
        assert str(CHART.relative_to(ROOT)) in words
        names = [word for word in words if word == "oneseek"]
        values = dict(word.split("=") for flag, word in itertools.pairwise(words) if flag == "--set")
        nested: dict[str, dict[str, str]] = {}
        for key, value in values.items():
            outer, inner = key.split(".")
            nested.setdefault(outer, {})[inner] = value
        rendering = tools.render(nested, name=names[0])
        assert f"deployment/{names[0]}" in rendering.notes
    elif (program, verb) == ("kubectl", "apply"):
        assert kustomize(ROOT / words[words.index("--kustomize") + 1])
    elif (program, verb) == ("kubectl", "create"):
        keys = {word.split("=")[1] for word in words if word.startswith("--from-literal")}
        assert keys == {option.path for option in OPTIONS if option.secret}
    else:
        assert program == "kubectl"
        assert verb in ("rollout", "port-forward", "cp")


def test_paths_on_the_page_are_the_pods(tools: Tools) -> None:
    values = blocks("helm")[0] | {
        "storage": {name: {"size": "1Gi"} for name in ("models", "adapters", "home")}
    }
    pod = resolve_pod(only(tools.render(values).manifests, "Deployment"))
    table = dict(re.findall(r"^\| `(\w+)` \| `(/[\w/]+)`", PAGE, re.MULTILINE))
    assert {name: pod.mounts[path]["name"] for name, path in table.items()} == {name: name for name in table}
    assert set(table) == {"models", "adapters", "home", "cache"}
    (adapter,) = [one for one in blocks("other") if one["kind"] == "ModelAdapter"]
    assert adapter["spec"]["artifactURL"].startswith(f"{table['adapters']}/")
    labels = of_kind(tools.render(blocks("helm")[1]).manifests, "Deployment")[0]["spec"]["template"][
        "metadata"
    ]
    assert adapter["spec"]["podSelector"]["matchLabels"].items() <= labels["labels"].items()
