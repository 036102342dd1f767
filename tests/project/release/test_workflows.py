"""Files that other machines read are what those expect, as far as a schema can tell. None is run here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.project.documents.pages import ROOT, name_of

GITHUB = ROOT / ".github"
SCHEMAS = {
    "vendor.github-workflows": sorted((GITHUB / "workflows").glob("*.yml")),
    "vendor.github-issue-forms": sorted(
        file for file in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if file.name != "config.yml"
    ),
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE" / "config.yml"],
}
WORKFLOWS = SCHEMAS["vendor.github-workflows"]


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_a_file_fits_its_schema(schema: str) -> None:
    assert SCHEMAS[schema]
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        schema,
        *map(str, SCHEMAS[schema]),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=name_of)
def test_a_workflow_has_limits_and_few_rights(file: Path) -> None:
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert found["permissions"] == {"contents": "read"}, "a job that needs more asks for it itself"
    assert all("timeout-minutes" in job or job.get("environment") for job in found["jobs"].values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=name_of)
def test_a_workflow_runs_targets_that_exist(file: Path) -> None:
    targets = set(re.findall(r"run: make ([a-z][a-z-]*)", file.read_text(encoding="utf-8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_hooks_are_local_and_run_what_is_installed() -> None:
    found = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in found["repos"]] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/python ") for hook in found["repos"][0]["hooks"])


def test_the_development_container_makes_what_make_makes() -> None:
    found = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert found["postCreateCommand"] == "make .venv/.test"


def test_packages_say_that_they_are_typed() -> None:
    assert [
        name for name in ("server", "adapters", "routing", "bench") if not (ROOT / name / "py.typed").exists()
    ] == []
