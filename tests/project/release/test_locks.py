"""The locks hold exact versions with hashes for all that pyproject.toml asks for, and nothing else."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.release.locks import LOCKS, NOT_LOCKED, path, wanted

PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; .+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
NAMES = sorted(wanted())


def pins(name: str) -> dict[str, list[str]]:
    """Package → its versions, one for each platform that has its own."""
    found: dict[str, list[str]] = {}
    for line in path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            pin = PIN.match(line)
            assert pin, line
            found.setdefault(pin[1], []).append(pin[2])
        else:
            assert HASH.match(line), line
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_pins_everything_by_hash_and_names_no_address(name: str) -> None:
    assert len(pins(name)) > 20
    assert "://" not in path(name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_what_is_asked_for(name: str) -> None:
    """A range that changed in pyproject.toml asks for `make locks`."""
    locked = pins(name)
    for requirement in wanted()[name]:
        if NOT_LOCKED.match(requirement.name) is None:
            assert satisfied(requirement, locked), f"{name}: {requirement}; run make locks"


def satisfied(requirement: Requirement, locked: dict[str, list[str]]) -> bool:
    versions = locked.get(canonicalize_name(requirement.name), [])
    return any(requirement.specifier.contains(version, prereleases=True) for version in versions)


@pytest.mark.parametrize("name", NAMES)
def test_no_lock_brings_torch_or_cuda(name: str) -> None:
    assert [pin for pin in pins(name) if NOT_LOCKED.match(pin)] == []


def test_there_is_no_other_lock() -> None:
    assert sorted(file.stem for file in LOCKS.glob("*.txt")) == NAMES
