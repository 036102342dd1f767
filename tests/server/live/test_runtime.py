"""Which base a request means, if a server has several."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from server.live.runtime import Runtime


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("tiny", True),
        ("TINY", True),
        ("tiny:mine", True),
        ("Tiny:auto", True),
        ("mine@v1", True),
        ("mine=0.5,other=0.5", True),
        ("tiny:mine=0.5", True),
        ("large:mine", False),
        ("tiny:other", False),
        ("auto", False),
        ("other=0.5,mine=0.5", False),
    ],
)
def test_a_base_knows_its_names(name: str, known: bool, tmp_path: Path) -> None:
    mine = Adapter(
        alias="mine", version="v1", digest="sha256:1", path=tmp_path, rank=1, alpha=1.0, targets=()
    )
    runtime = object.__new__(Runtime)  # its other parts need an engine and are not asked
    runtime.served = ServedAdapters([mine], base_digest="sha256:0", base_name="tiny")
    assert runtime.knows(name) is known
