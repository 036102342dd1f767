"""Computes prompts in bfloat16 with OpenVINO, on CPUs with bfloat16 instructions (AMX, AVX-512 BF16).

ONNX Runtime cannot multiply bfloat16 on the CPU. OpenVINO runs the portable graph in bfloat16, several times
faster. Its keys and values are written to the CPU runner's KV cache, so that ONNX Runtime can decode
afterwards.
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
"""Smallest prefill chunk, in tokens, that is computed in bfloat16. For shorter chunks, copying the KV cache
would cost more than it saves.
"""
STEP = 256
"""The number of positions that a prefill run attends to is rounded up to a multiple of this. With a larger
value, attention would be slower.
"""
INSTALL = "pip install 'oneseek[openvino]'"


def require_bfloat16() -> None:
    """Raise `EngineError` if OpenVINO is not installed or this CPU has no bfloat16 instructions."""
    if importlib.util.find_spec("openvino") is None:
        raise EngineError(f"prefill_dtype bf16 needs OpenVINO, which is not installed; run: {INSTALL}")
    if "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(
            "prefill_dtype bf16 is not supported by this CPU (it has neither AMX nor AVX-512 BF16); set it "
            "to fp32, and set quantize to int8 for faster prompts"
        )


class BfloatPrefill:
    """The portable graph, compiled by OpenVINO to compute prompts of any length in bfloat16.

    Raises `EngineError` if this machine cannot run it.
    """

    def __init__(self, graph: BuiltGraph, threads: int | None) -> None:
        """Compile `graph`, which must be portable and in fp32.

        The compiled graph keeps a second copy of the weights, two bytes per weight.
        """
        if graph.variant is not PORTABLE or graph.dtype != "fp32":
            raise ValueError(
                f"the ONNX graph for bf16 prefill has variant and dtype {graph.variant.name} {graph.dtype}; "
                "build it as portable fp32"
            )
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
        """Compute `tokens` in KV cache slot `row` from position `start` on, and write their keys and values
        into `memory`.

        `logits` [len(indices), vocabulary] receives the logits of `tokens[i]` for each i in `indices`.
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
                # Attend to at least one position, so that no matrix product has an empty dimension.
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
        """Release the adapter arrays of the last run."""
        self._pack, self._adapters = None, {}

    def _attach(self, store: AdapterStore, adapter_mix: AdapterMix) -> dict[str, openvino.Tensor]:
        """Return the LoRA inputs for `adapter_mix`, a request's adapters with their weights: the adapters'
        packed arrays and the mask.

        The packed arrays are kept for the next run.
        """
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
    # Importing OpenVINO would load a package that reports usage. OpenVINO has a stub for its absence.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino.Core()
