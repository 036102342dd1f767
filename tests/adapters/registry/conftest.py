"""Registries with their ledger: an empty one, and one with three versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.ledger import Ledger
from adapters.lora.weights import ModelShape
from adapters.registry.registry import Base, Registry
from tests.adapters.registry.registries import Make, scaled


@pytest.fixture
def base(shape: ModelShape) -> Base:
    return Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "home" / "ledger")


@pytest.fixture
def registry(tmp_path: Path, ledger: Ledger) -> Registry:
    return Registry(tmp_path / "home", ledger)


@pytest.fixture
def zero(registry: Registry, base: Base, make_adapter: Make) -> Registry:
    """A registry with three versions of `zero`, the first of them active."""
    for number in range(3):
        folder = make_adapter(f"zero-v1.{number}", tensors=scaled(number + 1))
        registry.add(folder, base=base)
    return registry
