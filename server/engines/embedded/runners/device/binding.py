"""One session with what it reads and fills on the device, bound once and run many times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.engines.embedded.runners.device.adapters import UploadedPack
from server.engines.embedded.runners.device.memory import Block


class DeviceBinding:
    """A session, the weights, the block that it reads and the one that it fills."""

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
        """Compute, with these arrays and adapters; `logits` [outputs, vocabulary] receives the result."""
        if adapters is not self._adapters:
            self._adapters = adapters
            for name, value in adapters.values.items():
                self._binding.bind_ortvalue_input(name, value)
        for name, array in host.items():  # anew each time: a device has them copied when they are bound
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self.session.run_with_iobinding(self._binding)
