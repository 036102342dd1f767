"""Write the random base and LoRA adapters that both servers of a GPU benchmark load.

    python -m bench.gpu.models WORK [--preset 7b] [--dtype bfloat16]

The command needs numpy, ml_dtypes, safetensors and tokenizers, but neither OneSeek's server nor vLLM.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.progress import print_progress
from bench.random_model import PRESETS, write_adapter, write_model

ADAPTERS = tuple(f"a{number}" for number in range(1, 9))
"""Names of the adapters. Their ranks alternate between 16 and 8."""
RANKS = (16, 8) * 4
VERSIONS = ("swap-1", "swap-2")
"""Names of two versions of one more adapter, which the scenario `swap` exchanges. They have the
largest rank.
"""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def make_model(work: Path, preset: str, dtype: str) -> tuple[Path, dict[str, Path]]:
    """Return the folders of the base and of its adapters by name, and write those that `work` lacks. A lock
    file keeps two processes from writing at once.
    """
    with (work / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make_model(work, preset, dtype)


def _make_model(work: Path, preset: str, dtype: str) -> tuple[Path, dict[str, Path]]:
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


def main(given: Sequence[str] | None = None) -> None:
    """Write the models that do not exist yet, and print their folders as one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.models", description="Write the random base and adapters of a GPU run."
    )
    parser.add_argument("work", type=Path, help="folder; 15 GB for 7b")
    parser.add_argument("--preset", choices=PRESETS, default="7b")
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    arguments = parser.parse_args(given)
    arguments.work.mkdir(parents=True, exist_ok=True)
    base, adapters = make_model(arguments.work, arguments.preset, arguments.dtype)
    print(json.dumps({"base": str(base), "adapters": {name: str(path) for name, path in adapters.items()}}))


if __name__ == "__main__":
    main()
