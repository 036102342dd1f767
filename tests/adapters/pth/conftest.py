"""The base that what is converted is for."""

from __future__ import annotations

import pytest

from adapters.lora.weights import ModelShape
from adapters.registry.registry import Base


@pytest.fixture
def base(shape: ModelShape) -> Base:
    return Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape)
