"""Ledgers as they are written in practice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.ledger import Ledger, Record


def sha(letter: str) -> str:
    return "sha256:" + letter * 64


def record(number: int = 0) -> Record:
    """A record that has something in every field, characters past ASCII and a float among it."""
    return Record(
        action="train",
        subject=f"oneseek-7b-zero-sv@v1.{number}",
        inputs={"base": sha("a"), "data": (sha("b"), sha("c"))},
        outputs={"adapter": f"sha256:{number:064x}"},
        metrics={"loss": 0.5, "perplexity": 1e21},
        details={"seed": number, "ord": "blåbär\n", "rows": [1, None, True]},
    )


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of five entries, with a change of keys as its fourth."""
    folder = tmp_path_factory.mktemp("written") / "ledger"
    ledger = Ledger.open(folder)
    for number in range(3):
        ledger.append(record(number))
    ledger.rotate()
    ledger.append(record(4))
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a fresh copy of it at each call, in the same place."""

    def copy() -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return shutil.copytree(written, folder)

    return copy
