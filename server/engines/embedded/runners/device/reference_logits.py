"""Reference logits: those that the CPU computes, with which a device's logits are compared. They are computed
when first needed and saved next to the graph.

The CPU runs the device's own graph, with the same rounded weights. So a difference comes from the device's
arithmetic, not from the precision of the weights. Missing logits are computed in a temporary session on the
CPU (`reference_runner`), which is closed before the device's session is opened at start. So the comparison
needs memory for that session at most, and almost none once the logits are on disk.
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
"""Key that stands for the base model without an adapter, instead of an adapter's digest."""
FOLDER = "golden"
KEPT = 64
"""Maximum number of saved files of reference logits. Each takes about 1.3 MiB for a vocabulary of 32,000
tokens.
"""
NAMED = 24
"""Number of characters of an adapter's digest in a file name. Not the whole digest, since Windows limits
paths to 260 characters.
"""
ROOM = 256 << 20
"""Bytes that the CPU session for reference logits needs in addition to the graph's largest matrix."""

logger = logging.getLogger(__name__)


class DeviceCheck:
    """Compares one device's logits with the CPU's, for the base model and for each adapter.

    Call `prepare` first, in any thread, then `examine` in the runner's thread.
    """

    def __init__(
        self, graph: BuiltGraph, device: str, rows: int, context: int, threads: int | None = None
    ) -> None:
        self._graph, self._device, self._threads = graph, device, threads
        self._rows = min(2, rows)
        self._context = min(context, PROMPT + DECODES)
        self._references: dict[str, NDArray[np.float32]] = {}

    def prepare(self, wanted: Mapping[str, AdapterWeights | None]) -> None:
        """Load or compute the CPU's logits for each digest in `wanted`. The key `BASE` (the base model) has
        None as weights.

        Raises `DeviceError` if memory is too small to compute them, and `ValueError` if an adapter does not
        fit the base model.
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
        """Run the self-test for the adapter `digest` (or `BASE`) on the device, in the first one or two KV
        cache slots of `rows`.

        Raises `DeviceError` if the device fails, or if its logits differ too much from the CPU's.
        """
        reference = self._references.pop(digest)
        subject = "the adapter" if digest else "the base"
        adapter_mix = ((digest, 1.0),) if digest else ()
        try:
            found = exercise(runner, rows[: self._rows], self._context, adapter_mix)
        except Exception as error:  # drivers raise any type; the log has the traceback
            logger.exception(
                "device %s raised an error in its self-test with %s, so the device does not serve this model",
                self._device,
                f"the adapter {digest}" if digest else "the base model",
            )
            raise DeviceError(
                "failed",
                f"device {self._device} failed while its self-test computed {subject}: "
                f"{type(error).__name__}; the server's log has the details",
            ) from error
        dtype, quantize = self._graph.dtype, self._graph.quantize
        result = judge_logits(subject, self._device, dtype, quantize, found, reference)
        if not result.passed:
            raise DeviceError("logits", str(result))
        logger.info("device self-test passed for %s: %s", digest[:19] or "base", result)
        return result

    def _compute(self, missing: Mapping[str, AdapterWeights | None]) -> None:
        needed, free = truth_bytes(self._graph.config), available_memory()
        if needed > free:
            raise DeviceError(
                "memory",
                f"the self-test of device {self._device} needs {needed >> 20} MiB of main memory for a "
                f"moment, but only {free >> 20} MiB are free; free some memory, or use --device cpu",
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
        """Return the path at which an adapter's reference logits are saved.

        Folder and name contain everything that the logits depend on.
        """
        subject = digest.removeprefix("sha256:")[:NAMED] or "base"
        shape = f"{EXERCISE}-{self._rows}x{self._context}"
        return self._graph.folder / FOLDER / f"{subject}-{shape}-{ort.__version__}.npy"

    def _read(self, digest: str) -> NDArray[np.float32] | None:
        """Read an adapter's reference logits from disk; None if the file is missing or does not hold logits
        of this graph.
        """
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
        """Save an adapter's reference logits to disk.

        If that fails, log a warning; the next start computes them again.
        """
        target = self._file(digest)
        try:
            with staged_file(target) as temporary, temporary.open("wb") as file:
                np.save(file, logits, allow_pickle=False)
            _prune(target.parent)
        except OSError as error:
            logger.warning(
                "the CPU's reference logits for the device self-test cannot be saved in %s; "
                "the next start computes the logits again: %s",
                target.parent,
                error,
            )


def truth_bytes(config: ModelConfig) -> int:
    """Return the maximum bytes needed to compute reference logits on the CPU, without memory that the system
    can reclaim.
    """
    shapes = config.shapes
    largest = max(
        sum(shapes[name][0] * shapes[name][1] for name in modules) for modules in config.groups.values()
    )
    return ROOM + 2 * 4 * max(largest, config.vocabulary * config.hidden)


def _prune(folder: Path) -> None:
    """Remove the oldest files of reference logits, so that at most `KEPT` remain in `folder`."""
    with suppress(OSError):
        ages = {path: path.stat().st_mtime for path in folder.iterdir()}
        for path in sorted(ages, key=lambda path: ages[path], reverse=True)[KEPT:]:
            path.unlink(missing_ok=True)
