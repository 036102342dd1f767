"""One set of pins for Windows: pip resolves what a host there would install, for each Python.

pip reads markers as those of the machine that it runs on, so this project's own are decided here. It cannot
show that those packages work together on Windows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from server.engines.embedded.runners.device.flavours import PINNED
from server.engines.embedded.runners.windowsml.catalogue import PINNED as CATALOGUE

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
PYTHONS = ("3.11", "3.12", "3.13")
FLAVOUR = "onnxruntime-windowsml"
SOURCE_ALONE = frozenset({"langdetect"})
"""pip builds nothing for another platform, and this one has no wheel; it is pure Python."""


def asked(extra: str, python: str) -> list[str]:
    """The requirements of an extra and of the project itself, as Windows reads them."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    there = {
        "sys_platform": "win32",
        "platform_system": "Windows",
        "os_name": "nt",
        "platform_machine": "AMD64",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    found: list[str] = []
    for text in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if requirement.name not in SOURCE_ALONE and (marker is None or marker.evaluate(there)):
            found.append(str(requirement))
    return found


def resolved(requirements: list[str], python: str, folder: Path) -> dict[str, str]:
    """Package → version, as pip would install them."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--platform", "win_amd64", "--only-binary", ":all:", "--python-version", python]
    command += ["--target", str(folder / "none"), "--report", str(folder / "report.json"), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in report["install"]}


@pytest.mark.parametrize(
    ("extra", "python"), [("directml", PYTHONS[0]), *(("windowsml", python) for python in PYTHONS)]
)
def test_pip_resolves_one_flavour_for_windows(extra: str, python: str, tmp_path: Path) -> None:
    found = resolved(asked(extra, python), python, tmp_path)
    flavours = {name: version for name, version in found.items() if name.startswith("onnxruntime")}
    assert flavours == {FLAVOUR: PINNED[FLAVOUR]}
    assert found.get("windowsml") == (CATALOGUE if extra == "windowsml" else None)
    assert {"numpy", "tokenizers", "uvicorn"} <= set(found)


def test_another_flavour_does_not_go_with_the_catalogue(tmp_path: Path) -> None:
    """The pair is Microsoft's own, so a pin that is changed alone is found here and not on Windows."""
    requirements = [f"{FLAVOUR}==1.28.2.202609030142", f"windowsml[with-ort]=={CATALOGUE}"]
    with pytest.raises(AssertionError, match="ResolutionImpossible"):
        resolved(requirements, PYTHONS[0], tmp_path)
