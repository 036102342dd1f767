"""How far the device's logits lie from the CPU's, on the base that ships: prints a line for each graph.

$(python -m tests.device.environment) -m tests.device.distances
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.lora.weights import ModelShape, read_adapter
from adapters.mini.shipped import ADAPTERS, BASE
from server.engines.embedded.model.cache import BuiltGraph, prepare
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device.providers import PROVIDERS, DeviceName
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix
from server.text.tokenizer import Tokenizer

GRAPHS: list[tuple[Dtype, Quantize]] = [
    (dtype, quantize) for dtype in ("fp32", "fp16") for quantize in ("none", "int8", "int4")
]
VOICES: list[AdapterMix] = [(), (("en", 1.0),), (("sv", 1.0),), (("en", 0.5), ("sv", 0.5))]
TEXTS = (
    "Who are you, and what can you do for me today?",
    "Tell me something about the sea and the ships that cross it, please.",
    "Vem är du, och vad kan du göra för mig i dag?",
    "Berätta något om havet och om skeppen som far över det, tack.",
)
STEPS = 4


def logits(graph: BuiltGraph, device: DeviceName) -> NDArray[np.float32]:
    """Of every position of the prompts and of some steps after them; [positions, vocabulary]."""
    shape, tokenizer = ModelShape.read(BASE), Tokenizer.load(BASE)
    prompts = [tokenizer.encode(text) for text in TEXTS]
    runner = DeviceRunner(graph, PROVIDERS[device], len(TEXTS), 64, 32)
    for folder in ADAPTERS:
        runner.load(folder.name[-2:], read_adapter(folder, shape))
    found = [
        runner.prefill(row, 0, prompt, VOICES[row], range(len(prompt))).copy()
        for row, prompt in enumerate(prompts)
    ]
    for at in range(STEPS):
        rows = [
            DecodeRow(row, 300 + row, len(prompt) + at, VOICES[row]) for row, prompt in enumerate(prompts)
        ]
        found.append(runner.decode(rows).copy())
    runner.close()
    return np.concatenate(found)


def main() -> None:
    """One line for each graph."""
    with tempfile.TemporaryDirectory() as scratch:
        for dtype, quantize in GRAPHS:
            graph = prepare(BASE, Path(scratch), "mini", quantize, variant=PORTABLE, dtype=dtype)
            expected = logits(graph, "cpu")
            difference = np.abs(logits(graph, "webgpu") - expected)
            usual = np.sqrt(np.mean(difference**2))
            print(
                f"{dtype} {quantize}: largest {difference.max():.2g}, root mean square {usual:.2g}; "
                f"logits of deviation {expected.std():.2g}, up to {np.abs(expected).max():.3g}"
            )


if __name__ == "__main__":
    main()
