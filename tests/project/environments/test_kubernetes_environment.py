"""How the environment of the charts' tests is made and kept, short of the install."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.deploy.kubernetes import environment


def test_the_lock_holds_hashes_and_no_addresses() -> None:
    text = environment.LOCK.read_text(encoding="utf-8")
    pins = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.-]+==\S+", pin) and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in text


def test_the_lock_of_node_holds_hashes_and_no_addresses() -> None:
    text = (environment.NODE / "package-lock.json").read_text(encoding="utf-8")
    packages = {name: package for name, package in json.loads(text)["packages"].items() if name}
    assert packages
    assert all("integrity" in package for package in packages.values())
    assert "://" not in text


def test_the_locks_have_what_is_wanted() -> None:
    wanted = [line for line in environment.WANTED.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    pins = re.findall(r"^(\S+==\S+)", environment.LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert all(any(pin == line or pin.startswith(f"{line}==") for pin in pins) for line in wanted)
    package = json.loads((environment.NODE / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((environment.NODE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, version in package["dependencies"].items():
        assert lock[f"node_modules/{name}"]["version"] == version


@pytest.mark.parametrize("name", ["kubernetes.lock", "node/package-lock.json", "node/package.json"])
def test_every_change_of_what_is_installed_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = environment.key()
    copy = tmp_path / "kubernetes"
    shutil.copytree(environment.HERE, copy)
    monkeypatch.setattr(environment, "LOCK", copy / "kubernetes.lock")
    monkeypatch.setattr(environment, "NODE", copy / "node")
    assert environment.key() == before
    (copy / name).write_text((copy / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert environment.key() != before
