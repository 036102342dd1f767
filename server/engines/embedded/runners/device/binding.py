"""An ONNX session that is bound once to the device memory that it reads and writes, and then run many
times.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.engines.embedded.runners.device.adapters import UploadedPack
from server.engines.embedded.runners.device.memory import Block


class DeviceBinding:
    """Binds a session to the weights, to the block of KV cache that it reads, and to the block that it
    writes.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        weights: Mapping[str, ort.OrtValue],
        names: list[str],
        block: Block,
        target: Block,
    ) -> None:
        self.session = session
        self._binding = session.io_binding()
        self._adapters: UploadedPack | None = None
        for name, value in weights.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, before, after in zip(names, block.values, target.values, strict=True):
            self._binding.bind_ortvalue_input(f"past_{name}", before)
            self._binding.bind_ortvalue_output(f"present_{name}", after)

    def run(
        self, host: Mapping[str, NDArray[np.generic]], adapters: UploadedPack, logits: NDArray[np.float32]
    ) -> None:
        """Run the session with the inputs `host` (arrays in host memory) and `adapters` (LoRA weights in the
        device's memory).

        `logits` [outputs, vocabulary] receives the result.
        """
        if adapters is not self._adapters:
            self._adapters = adapters
            for name, value in adapters.values.items():
                self._binding.bind_ortvalue_input(name, value)
        for name, array in host.items():  # again for each run: binding copies them
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self.session.run_with_iobinding(self._binding)
