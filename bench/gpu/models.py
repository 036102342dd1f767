"""The random base and adapters that both servers load."""

from __future__ import annotations

import time
from pathlib import Path

from bench.gpu.run import print_progress
from bench.gpu.scenarios import ADAPTERS, RANKS, TARGETS, VERSIONS
from bench.random_model import PRESETS, write_adapter, write_model


def make_model(work: Path, preset: str, dtype: str) -> tuple[Path, dict[str, Path]]:
    """The base and its adapters under `work`, made where they are not there yet."""
    shape = PRESETS[preset]
    base = work / f"{preset}-{dtype}"
    adapters = {name: work / f"{preset}-{name}-r{rank}" for name, rank in zip(ADAPTERS, RANKS, strict=True)}
    versions = [work / name for name in VERSIONS]
    paths, ranks = (base, *adapters.values(), *versions), (0, *RANKS, *[max(RANKS)] * len(versions))
    began = time.monotonic()
    for number, (path, rank) in enumerate(zip(paths, ranks, strict=True)):
        if path.exists():
            continue
        partial = path.with_name(path.name + ".partial")
        if rank:
            write_adapter(partial, shape, rank, TARGETS, seed=number)
        else:
            write_model(partial, shape, dtype=dtype)
        partial.rename(path)
        print_progress(f"wrote {path} ({time.monotonic() - began:.0f} s)")
    return base, adapters
