"""How the environment of `make test-ray` is made, short of the downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environments import distribution
from tests.ray import environment


def test_ray_is_there_and_torch_is_not() -> None:
    names = {distribution(line) for line in environment.requirements()}
    assert {"ray", "onnxruntime", "pytest", "httpx"} <= names
    assert not {"torch", "transformers", "vllm"} & names


def test_the_lock_names_what_is_asked_for_and_no_address() -> None:
    lines = environment.LOCK.read_text(encoding="utf-8").splitlines()
    assert all(len(line.split("==")) == 2 and "@" not in line for line in lines)
    assert {"ray", "onnxruntime", "starlette"} <= {distribution(line) for line in lines}
    assert not [line for line in lines if line.startswith(("nvidia", "torch"))]


def test_every_change_of_what_is_installed_makes_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = environment.key()
    assert environment.key() == before
    changed = tmp_path / "pyproject.toml"
    changed.write_text(environment.PYPROJECT.read_text().replace('"jinja2', '"another", "jinja2'))
    monkeypatch.setattr(environment, "PYPROJECT", changed)
    assert environment.key() != before
