"""Puts a base on a provider's library, as a start does, and prints what the self-test left of it.

    python -m tests.server.engines.embedded.runners.windowsml.judged LIBRARY BASE FOLDER DTYPE MEMORY

MEMORY `own` has keys, values and weights in memory that the provider allocates, as a card's would be.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import onnxruntime as ort

from server.engines.embedded.launch.device_choice import DevicePlan, open_best
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device import memory as device_memory
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.runners.device.sessions import find_devices
from server.engines.embedded.scheduling.limits import SchedulerLimits

OPENVINO, DIGEST = "OpenVINOExecutionProvider", "sha256:" + "0" * 64
LIMITS = SchedulerLimits(
    max_num_seqs=2,
    max_num_batched_tokens=16,
    rows=3,
    context=64,
    kv_tokens=192,
    prefill_chunk=16,
    prefix_caching=True,
)


def main(library: str, base: str, folder: str, dtype: str, memory: str) -> None:
    """Judge, and print one JSON object; an exception if the provider is refused."""
    ort.register_execution_provider_library(OPENVINO, library)
    info: Any = None
    if memory == "own":
        info = find_devices(OPENVINO, "cpu")[0].memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
        device_memory.own_memory = Mock(return_value=info)
    graph = prepare(Path(base), Path(folder), DIGEST, variant=PORTABLE, dtype=cast("Dtype", dtype))

    def placed(provider: Provider) -> DevicePlan:
        return DevicePlan(provider, graph, LIMITS)

    device = replace(PROVIDERS["windowsml"], ort=OPENVINO, hardware="cpu")
    opened = open_best([device], placed, 1, dict)
    opened.open_runner().close()
    print(json.dumps({"info": asdict(opened.info), "memory": None if info is None else info.name}))


if __name__ == "__main__":
    main(*sys.argv[1:])
