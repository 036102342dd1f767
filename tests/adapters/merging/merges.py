"""Merges as tests start them: quiet, stopped at a step, or without a check of the logits."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters.lora.manifest import read_manifest
from adapters.merging.merge import Merge, MergeResult

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Quiet:
    """Tells nobody; stops the merge at a step where it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.steps = stop_at, 0

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Generator[Quiet]:
        yield self

    def step(self, done: int) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt


def unchecked(folder: Path) -> Mapping[str, Any]:
    return {"skipped": "a test"}


def job(base: Path, lora: Path, output: Path) -> Merge:
    return Merge(base=base, base_name="tiny", adapter=read_manifest(lora), output=output)


def merged(base: Path, lora: Path, output: Path) -> MergeResult:
    return job(base, lora, output).run(Quiet(), unchecked)
