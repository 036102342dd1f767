"""One way to make each engine with the limits that a test wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.engines.base import Engine
from server.engines.embedded.launch import EmbeddedOptions, embedded_engine
from server.tokens import Tokenizer

BASE_DIGEST = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the tests of the contract may limit."""

    max_num_seqs: int = 32
    max_queue: int = 2000
    kv_tokens: int = 32 * 256
    max_adapters: int = 64


def embedded(base: Path, scratch: Path, limits: EngineLimits) -> Engine:
    options = EmbeddedOptions(
        graphs=scratch / "graphs",
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=max(64, limits.max_num_seqs),
        max_queue=limits.max_queue,
        max_adapters=limits.max_adapters,
        kv_tokens=limits.kv_tokens,
        threads=2,
    )
    return embedded_engine(base, BASE_DIGEST, Tokenizer.load(base), options)


ENGINES: dict[str, Callable[[Path, Path, EngineLimits], Engine]] = {"embedded": embedded}
"""Name as in `--engine` → how it is made, not yet started: base, a folder to write to, limits."""
