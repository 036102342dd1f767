"""What a registry and its ledger hold, and tensors that make an adapter another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adapters.ledger import Ledger, Record
from adapters.registry.registry import Registry

Make = Callable[..., Path]
NAME = "base_model.model.model.layers.0.self_attn.q_proj"


def records(ledger: Ledger) -> list[Record]:
    """Every change that the ledger holds, oldest first."""
    return [entry.record for entry in ledger.entries()]


def scaled(factor: float) -> dict[str, Any]:
    """One tensor that makes an adapter another one."""
    return {f"{NAME}.lora_B.weight": np.full((32, 4), factor, np.float32)}


def everything(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def active(registry: Registry, alias: str = "zero") -> str:
    found = registry.listing().active(alias)
    assert found is not None
    return found.version
