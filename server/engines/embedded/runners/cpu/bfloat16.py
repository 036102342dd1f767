"""Prompts in bfloat16 through OpenVINO, on CPUs that multiply such numbers (AMX, AVX-512 BF16).

ONNX Runtime's CPU provider has no such product. OpenVINO runs the same portable graph with one hint,
several times faster; it shares the CPU runner's KV memory, so that decoding goes on in ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.inputs import InputBatch, host_inputs
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.memory import KvMemory
from server.engines.embedded.runners.lora import AdapterStore, Pack
from server.errors import EngineError
from server.request import AdapterMix

if TYPE_CHECKING:
    import openvino

LEAST_TOKENS = 16
"""Shorter chunks are not worth the copies of keys and values; the CPU runner computes them itself."""
STEP = 256
"""Positions that a run sees are rounded up to so many: attention costs what it sees."""
INSTALL = "pip install 'oneseek[openvino]'"


def require_bfloat16() -> None:
    """Raise `EngineError` where OpenVINO is not installed, or this CPU multiplies no such numbers."""
    if importlib.util.find_spec("openvino") is None:
        raise EngineError(f"prefill_dtype bf16 computes through OpenVINO: {INSTALL}")
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            "prefill_dtype bf16: this CPU multiplies no such numbers (it has neither AMX nor AVX-512 BF16); "
            "use fp32, or quantize int8 where prompts should be faster"
        )


class BfloatPrefill:
    """One compiled graph of any shape. Raises `EngineError` where this machine cannot run it."""

    def __init__(self, graph: BuiltGraph, threads: int | None) -> None:
        """Compile the portable fp32 `graph`; its weights are kept a second time, in two bytes each."""
        if graph.variant is not PORTABLE or graph.dtype != "fp32":
            raise ValueError(f"graph is {graph.variant.name} {graph.dtype}; prepare it as portable fp32")
        self._config = graph.config
        self._compiled = _compile(graph.path, threads)
        self._request = self._compiled.create_infer_request()
        self._logits = self._compiled.output("logits")
        self._present = {
            (layer, part): self._compiled.output(f"present_{letter}.{layer}")
            for layer in range(graph.config.layers)
            for part, letter in enumerate("kv")
        }
        self._pack: Pack | None = None
        self._adapters: dict[str, openvino.Tensor] = {}

    def run(
        self,
        memory: KvMemory,
        store: AdapterStore,
        row: int,
        start: int,
        tokens: Sequence[int],
        adapter_mix: AdapterMix,
        indices: NDArray[np.int64],
        logits: NDArray[np.float32],
    ) -> None:
        """Compute `tokens` at positions `start`… of `row` and write their keys and values into `memory`.

        `logits` [len(indices), vocabulary] receives those of `indices` into `tokens`.
        """
        import openvino

        end = start + len(tokens)
        seen = min(memory.array.shape[4], -(-end // STEP) * STEP)
        batch = InputBatch.idle_rows(1, len(tokens), seen)
        batch.place(0, tokens, start)
        feed: dict[str, Any] = dict(self._attach(store, adapter_mix))
        feed |= {
            name: openvino.Tensor(np.ascontiguousarray(array))
            for name, array in {
                **host_inputs(self._config, "float32", batch, seen),
                # One at least: a product over no positions at all is an edge that nothing else needs.
                "indices": indices if len(indices) else np.zeros(1, np.int64),
            }.items()
        }
        for layer, part in self._present:
            past = np.ascontiguousarray(memory.array[layer, part, row, :, :seen])[None]
            feed[f"past_{'kv'[part]}.{layer}"] = openvino.Tensor(past, shared_memory=True)
        results = self._request.infer(feed, share_inputs=True, share_outputs=True)
        for (layer, part), port in self._present.items():
            memory.array[layer, part, row, :, start:end] = results[port][0, :, start:end]
        if len(indices):
            logits[...] = results[self._logits]

    def forget(self) -> None:
        """Let go of the adapters of the last run."""
        self._pack, self._adapters = None, {}

    def _attach(self, store: AdapterStore, adapter_mix: AdapterMix) -> dict[str, openvino.Tensor]:
        """The wide arrays of a mix's adapters, kept for the next run, and what it takes of each."""
        import openvino

        current = self._pack if self._pack is not None and store.holds(self._pack) else store.base
        pack = store.pack(frozenset(digest for digest, _ in adapter_mix), current)
        if pack is not self._pack:
            self._pack = pack
            self._adapters = {
                name: openvino.Tensor(array, shared_memory=True) for name, array in pack.arrays.items()
            }
        masks = pack.masks([adapter_mix])
        wanted = {group: masks.get(group, np.zeros((1, 1, 0), np.float32)) for group in self._config.groups}
        return self._adapters | {
            f"lora_mask.{group}": openvino.Tensor(np.ascontiguousarray(mask))
            for group, mask in wanted.items()
        }


def _compile(path: Path, threads: int | None) -> openvino.CompiledModel:
    require_bfloat16()
    core = _core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(core.read_model(path), "CPU", options)


def _core() -> openvino.Core:
    # Its import would load a package that reports use; it has a stub for where that is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino.Core()
