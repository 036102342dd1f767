"""How the environment of `make test-clients` is made and kept, short of the install; and docs/clients.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bench.live import environment as llama
from tests.clients import clients, environment, table

LOCKS = (
    *map(environment.lock, (environment.LIGHT, environment.OPENAI3, environment.HEAVY, environment.PERF)),
    llama.LOCK,
)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_hashes_and_no_addresses(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    pins = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[\w.-]+==\S+", pin) and "--hash=sha256:" in pin for pin in pins)
    assert "://" not in text
    assert not [pin for pin in pins if pin.startswith(environment.NOT_IN_A_LOCK)]


def test_the_lock_of_node_holds_hashes_and_no_addresses() -> None:
    lock = json.loads((environment.NODE / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages.values())


def test_pins_go_with_their_hashes() -> None:
    lines = [
        "a==1 \\",
        "    --hash=sha256:1",
        "torch==2 \\",
        "    --hash=sha256:2",
        "tornado==3 \\",
        "    --hash=sha256:3",
    ]
    assert environment.without(lines, ("torch", "nvidia-")) == [*lines[:2], *lines[4:]]


@pytest.mark.parametrize("name", ["clients.lock", "clients-openai3.lock", "node/package-lock.json"])
def test_every_change_of_what_is_installed_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = environment.key(environment.LIGHT)
    copy = tmp_path / "clients"
    shutil.copytree(environment.HERE, copy, ignore=shutil.ignore_patterns("suite"))
    monkeypatch.setattr(environment, "HERE", copy)
    monkeypatch.setattr(environment, "NODE", copy / "node")
    assert environment.key(environment.LIGHT) == before
    (copy / name).write_text((copy / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert environment.key(environment.LIGHT) != before


def test_the_light_environment_has_no_torch() -> None:
    lock = environment.lock(environment.LIGHT).read_text(encoding="utf-8")
    assert not re.search(r"^(torch|transformers|onnxruntime|pandas|nvidia-\S+)==", lock, re.MULTILINE)


def test_inference_perf_has_a_newer_python_or_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = environment.newer_python()
    if found is not None:
        wanted = f"import sys; assert sys.version_info >= {environment.PERF_PYTHON}"
        assert subprocess.run([found, "-c", wanted], check=False).returncode == 0
    monkeypatch.setattr(environment, "PERF_PYTHON", (99, 0))
    assert environment.newer_python() is None
    monkeypatch.setattr("sys.argv", ["environment", "--inference-perf", "--cache", str(tmp_path)])
    environment.main()
    assert list(tmp_path.iterdir()) == [], "nothing is made"


def test_the_document_has_the_versions_of_the_locks() -> None:
    document = table.DOCUMENT.read_text(encoding="utf-8")
    assert table.table() in document
    assert table.written(document) == document


def test_every_client_has_its_tests_and_every_module_its_client() -> None:
    suite = environment.HERE / "suite"
    tested = {path.stem.removeprefix("test_") for path in suite.glob("test_*.py")}
    assert tested == {client.name for client in clients.CLIENTS}
