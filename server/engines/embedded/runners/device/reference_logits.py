"""The CPU's logits that a device is judged by: computed when first wanted, kept beside the built graph.

They are of the device's own graph, so of its weights rounded as it has them: a difference is the device's
arithmetic, not the precision that was asked for. A session on the CPU computes what is missing and is closed
again (`reference_runner`); the device's own session is opened after that where both start together. So the
most that judging takes is that session's memory, and next to nothing once the logits are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.files.atomic import staged_file
from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.runners.available import available_memory
from server.engines.embedded.runners.device.reference_runner import ReferenceRunner
from server.engines.embedded.runners.device.selftest import (
    DECODES,
    EXERCISE,
    PROMPT,
    DeviceError,
    SelfTest,
    exercise,
    foretell,
    judge_logits,
)
from server.engines.embedded.runners.protocol import Runner

BASE = ""
"""Stands for the base alone, where an adapter's digest could be."""
FOLDER = "golden"
KEPT = 64
"""Files that are kept; about 1.3 MiB each where the vocabulary has 32,000 tokens."""
NAMED = 24
"""Characters of a digest that name a file: Windows has 260 for a whole path."""
ROOM = 256 << 20
"""Bytes that a session on the CPU takes beside its largest matrix."""

logger = logging.getLogger(__name__)


class DeviceCheck:
    """Judges one device by the CPU. `prepare` before `examine`, in any thread; `examine` in the runner's."""

    def __init__(
        self, graph: BuiltGraph, device: str, rows: int, context: int, threads: int | None = None
    ) -> None:
        self._graph, self._device, self._threads = graph, device, threads
        self._rows = min(2, rows)
        self._context = min(context, PROMPT + DECODES)
        self._references: dict[str, NDArray[np.float32]] = {}

    def prepare(self, wanted: Mapping[str, AdapterWeights | None]) -> None:
        """Have the CPU's logits of each digest at hand; None as the weights of `BASE`.

        Raises `DeviceError` where memory is short for computing them, `ValueError` where an adapter
        does not fit the graph.
        """
        missing: dict[str, AdapterWeights | None] = {}
        for digest, weights in wanted.items():
            kept = self._read(digest)
            if kept is None:
                missing[digest] = weights
            else:
                self._references[digest] = kept
        if missing:
            self._compute(missing)

    def examine(self, runner: Runner, rows: Sequence[int], digest: str) -> SelfTest:
        """Run the exercise on the device, in as many `rows` as it was prepared for.

        Raises `DeviceError` where the device fails or computes something else than the CPU.
        """
        reference = self._references.pop(digest)
        subject = "the adapter" if digest else "the base"
        adapter_mix = ((digest, 1.0),) if digest else ()
        try:
            found = exercise(runner, rows[: self._rows], self._context, adapter_mix)
        except Exception as error:  # whatever a driver raises; the log has all of it
            logger.exception("the self-test of %s failed", self._device)
            raise DeviceError(
                "failed", f"{self._device} fails at {subject}: {type(error).__name__}"
            ) from error
        dtype, quantize = self._graph.dtype, self._graph.quantize
        result = judge_logits(subject, self._device, dtype, quantize, found, reference)
        if not result.passed:
            raise DeviceError("logits", str(result))
        logger.info("self-test %s: %s", digest[:19] or "base", result)
        return result

    def _compute(self, missing: Mapping[str, AdapterWeights | None]) -> None:
        needed, free = truth_bytes(self._graph.config), available_memory()
        if needed > free:
            raise DeviceError(
                "memory",
                f"judging {self._device} by the CPU takes {needed >> 20} MiB of memory for a moment and "
                f"{free >> 20} MiB are free",
            )
        runner = ReferenceRunner(self._graph, 1, self._context, self._threads)
        try:
            for digest, weights in missing.items():
                if weights is not None:
                    runner.load(digest, weights)
                adapter_mix = ((digest, 1.0),) if weights is not None else ()
                self._references[digest] = foretell(runner, self._rows, self._context, adapter_mix)
                self._write(digest, self._references[digest])
                if weights is not None:
                    runner.unload(digest)
        finally:
            runner.close()

    def _file(self, digest: str) -> Path:
        """Named by all that the logits depend on, beside what the graph's own folder says."""
        subject = digest.removeprefix("sha256:")[:NAMED] or "base"
        shape = f"{EXERCISE}-{self._rows}x{self._context}"
        return self._graph.folder / FOLDER / f"{subject}-{shape}-{ort.__version__}.npy"

    def _read(self, digest: str) -> NDArray[np.float32] | None:
        """What is kept; None where that is nothing, or no logits of this graph."""
        try:
            found = np.load(self._file(digest), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        whole = (
            found.dtype == np.float32
            and found.ndim == 2
            and found.shape[1] == self._graph.config.vocabulary
            and bool(np.isfinite(found).all())
        )
        return found if whole else None

    def _write(self, digest: str, logits: NDArray[np.float32]) -> None:
        """Keep logits; where that cannot be, they are computed again another time."""
        target = self._file(digest)
        try:
            with staged_file(target) as temporary, temporary.open("wb") as file:
                np.save(file, logits, allow_pickle=False)
            _prune(target.parent)
        except OSError as error:
            logger.warning("the CPU's logits cannot be kept in %s: %s", target.parent, error)


def truth_bytes(config: ModelConfig) -> int:
    """Memory that computing the CPU's logits takes at most, beside pages that the system can take back."""
    shapes = config.shapes
    largest = max(
        sum(shapes[name][0] * shapes[name][1] for name in modules) for modules in config.groups.values()
    )
    return ROOM + 2 * 4 * max(largest, config.vocabulary * config.hidden)


def _prune(folder: Path) -> None:
    """Remove the oldest files past `KEPT`."""
    with suppress(OSError):
        ages = {path: path.stat().st_mtime for path in folder.iterdir()}
        for path in sorted(ages, key=lambda path: ages[path], reverse=True)[KEPT:]:
            path.unlink(missing_ok=True)
