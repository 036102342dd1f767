"""How the environment of `make test-ray-vllm` is made, short of the downloads."""

from __future__ import annotations

from pathlib import Path

from tests.environments import distribution
from tests.ray import vllm_environment
from tests.vllm import environment as vllm

PYTHON = Path("/cache/vllm/bin/python")


def test_only_ray_is_asked_for() -> None:
    assert {distribution(line) for line in vllm_environment.requirements()} == {"ray"}


def test_every_distribution_has_one_version_and_vllms_wins() -> None:
    lines = vllm_environment.versions()
    names = [distribution(line) for line in lines]
    assert len(names) == len(set(names))
    assert "ray" in names
    assert set(vllm.LOCK.read_text(encoding="utf-8").splitlines()) <= set(lines)


def test_another_environment_of_vllm_makes_another() -> None:
    assert vllm_environment.key(PYTHON) == vllm_environment.key(PYTHON)
    assert vllm_environment.key(PYTHON) != vllm_environment.key(Path("/cache/newer/bin/python"))
