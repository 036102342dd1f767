"""docs/deploying.md says what the files say, and the script that pins images does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.config.settings import resolve_settings
from tests.deploy.image import DOCKERFILE, ROOT

DOCUMENT = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
PIN = ROOT / "deploy" / "docker" / "pin_images.py"
WORKFLOW = ROOT / ".github" / "workflows" / "container.yml"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def test_its_settings_are_those_of_the_example(tmp_path: Path) -> None:
    (shown,) = (body for kind, body in BLOCKS if kind == "yaml")
    (tmp_path / "oneseek.yaml").write_text(shown)
    resolved = resolve_settings(environ={}, config=tmp_path / "oneseek.yaml")
    example = resolve_settings(environ={}, config=ROOT / "deploy/proxy/oneseek.yaml")
    assert resolved.settings == example.settings


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:deploy|\.github)/[\w./-]+\w", DOCUMENT))))
def test_every_file_that_it_names_is_there(path: str) -> None:
    made_beside = {"deploy/prometheus", "deploy/grafana"}
    assert (ROOT / path).exists() or path in made_beside


def test_its_build_arguments_are_the_files() -> None:
    shown = re.findall(r"^\| `([A-Z]+)` \| (?:`(\S*)` )?\|", DOCUMENT, re.MULTILINE)
    declared = re.findall(r"^ARG (\w+)=(\S*)$", DOCKERFILE.read_text(), re.MULTILINE)
    found = {name: re.sub("@sha256:.*", "", value) for name, value in declared}
    assert {name: value.split("@")[0] for name, value in shown} == found


def test_the_exposure_that_it_tells_is_not_better_than_it_is() -> None:
    told = re.search(r"rates\s+the\s+service\s+([0-9.]+)", DOCUMENT)
    assert told
    assert float(told[1]) >= 1.4


def test_the_workflow_fits_githubs_schema() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(WORKFLOW),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    steps = [step for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    for path in re.findall(r"deploy/[\w./-]+", commands):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"--target (\w+)", commands):
        assert f" AS {target}\n" in DOCKERFILE.read_text()


# The script that pins.


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A `docker` that knows one digest, which it gives for the tags in the file `known`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(
        f'#!/bin/sh\ngrep -qxF "$4" "{tmp_path}/known" || {{ echo no such tag >&2; exit 1; }}\n'
        f"echo {DIGEST}\n"
    )
    program.chmod(0o755)
    return folder


def pin(docker: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": f"{docker}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(PIN), *map(str, paths)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_digests_are_written_behind_the_tags(docker: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "Dockerfile", tmp_path / "compose.yaml"]
    copies[0].write_text(DOCKERFILE.read_text())
    copies[1].write_text((ROOT / "deploy/compose/compose.yaml").read_text())
    tags = re.findall(r"docker\.io/[^\s@]+", "".join(path.read_text() for path in copies))
    assert len(tags) == 3
    (tmp_path / "known").write_text("\n".join(tags) + "\n")
    done = pin(docker, *copies)
    assert done.returncode == 0, done.stderr
    pinned = "".join(path.read_text() for path in copies)
    assert all(f"{tag}@{DIGEST}\n" in pinned for tag in tags)
    assert "image: oneseek:cpu\n" in pinned
    before = [path.read_text() for path in copies]
    assert pin(docker, *copies).stdout == ""
    assert [path.read_text() for path in copies] == before


def test_a_tag_that_nobody_knows_changes_nothing(docker: Path, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("another\n")
    copy = tmp_path / "Dockerfile"
    copy.write_text(DOCKERFILE.read_text())
    done = pin(docker, copy)
    assert done.returncode == 1
    assert "no such tag" in done.stderr
    assert copy.read_text() == DOCKERFILE.read_text()
