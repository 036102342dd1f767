"""How the environment of `make test-device` is made, short of the downloads."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from tests.device import environment, mesa
from tests.environments import distribution


def test_one_flavour_of_onnx_runtime_and_no_torch() -> None:
    names = [distribution(line) for line in environment.requirements()]
    assert [name for name in names if name.startswith("onnxruntime")] == ["onnxruntime-webgpu"]
    assert {"starlette", "tokenizers", "onnx", "pytest", "httpx"} <= set(names)
    assert not {"torch", "transformers", "peft"} & set(names)


def test_every_change_of_what_is_installed_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    before = environment.key()
    assert environment.key() == before
    monkeypatch.setenv("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/lvp_icd.json")
    assert environment.key() != before
    monkeypatch.delenv("VK_DRIVER_FILES")
    changed = tmp_path / "pyproject.toml"
    changed.write_text(environment.PYPROJECT.read_text().replace('"jinja2', '"another", "jinja2'))
    monkeypatch.setattr(environment, "PYPROJECT", changed)
    assert environment.key() != before


def start(folder: Path) -> str:
    """What a program started in an environment finds."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH $VK_DRIVER_FILES $1"\n')
    python.chmod(0o755)
    environment.write_start(folder)
    command = [str(folder / "bin" / environment.START), "an argument"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_python_starts_with_the_libraries_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VK_DRIVER_FILES", raising=False)
    folder = tmp_path / "an environment"
    assert start(folder) == f"{folder}/mesa {folder}/mesa/lvp_icd.json an argument"


def test_a_driver_that_the_machine_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/own.json")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/own")
    assert start(tmp_path / "env") == "/own /own.json an argument"


@pytest.mark.parametrize(
    ("machine", "release", "told"),
    [
        ("aarch64", {"ID": "debian"}, "x86_64.*aarch64"),
        (
            "x86_64",
            {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 42"},
            "Fedora Linux 42",
        ),
    ],
)
def test_another_machine_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, release: dict[str, str], told: str
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    with pytest.raises(SystemExit, match=told):
        mesa.unpack(tmp_path / "mesa")
    assert not (tmp_path / "mesa").exists()


def test_without_a_network_it_says_what_would_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An apt that fails, and says why."""
    apt = tmp_path / "apt-get"
    apt.write_text('#!/bin/sh\n[ "$1" = indextargets ] || { echo "E: Could not resolve"; exit 100; }\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    (tmp_path / "dpkg-deb").touch(0o755)
    with pytest.raises(SystemExit, match=r"Could not resolve(?s:.*)Mesa 25"):
        mesa.unpack(tmp_path / "mesa")
