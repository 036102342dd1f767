"""Compute the theoretical limit of a measured run: the highest token rate that its device allows for the same
requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.host import Gpu
from bench.limits.bases import find_base, packed
from bench.limits.cpu import measure_cpu
from bench.limits.devices import GpuSpec, find_device, targeted
from bench.limits.roofline import Model, tokens_per_second
from bench.load.records import RequestRecord

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class LimitMachine:
    """A device, and the sizes of the base that it serves."""

    device: GpuSpec
    model: Model


@dataclass(frozen=True, slots=True)
class RunLimit:
    """The highest token rate that a run is compared with: the theoretical limit of a device with its base, or
    the rate of --limit-tokens-per-second.
    """

    machine: LimitMachine | None = None
    given: float | None = None
    """The highest token rate from --limit-tokens-per-second. None if the limit is computed from the device.
    """

    def of(self, records: Sequence[RequestRecord], seconds: float) -> float | None:
        """Return the highest possible rate of answer tokens per second for requests like `records`. None if
        it is unknown.
        """
        if self.given is not None:
            return self.given
        return run_limit(self.machine, records, seconds) if self.machine else None

    def to_json(self) -> dict[str, Any]:
        """Return the limit as JSON for a report: the figures of the device, or only the token rate if
        --limit-tokens-per-second gives it.
        """
        if self.machine is None:
            return {"tokens_per_second": self.given}
        device, model = self.machine.device, self.machine.model
        return {
            "device": device.name,
            "source": device.source,
            "bandwidth": round(device.bandwidth, 1),
            "tflops": round(device.tflops, 3),
            "weight_bytes": model.packed or model.width,
        }


def machine(key: str, base: str, quantize: str, cpu_width: int = 4) -> LimitMachine:
    """Return the device that `oneseek bench limits` calls `key`, with the sizes of `base`. Unquantized
    weights have `cpu_width` bytes on the CPU and 2 on a GPU. Raises `ValueError` for an unknown name.
    """
    model = packed(find_base(base), quantize, cpu_width if key == CPU else 2)
    return LimitMachine(measure_cpu() if key == CPU else targeted(key), model)


def machine_at_hand(gpu: Gpu | None, base: str, quantize: str, cpu_width: int = 4) -> LimitMachine | None:
    """Return the device of this machine with the sizes of `base`. The device is `gpu`, or the measured CPU if
    `gpu` is None. None if the GPU or the base is unknown.
    """
    try:
        if gpu is None:
            return machine(CPU, base, quantize, cpu_width)
        device = find_device(gpu.name)
        return LimitMachine(device, packed(find_base(base), quantize)) if device else None
    except ValueError:
        return None


def run_limit(found: LimitMachine, records: Sequence[RequestRecord], seconds: float) -> float | None:
    """Return the highest possible rate of answer tokens per second for requests like `records`. None if no
    request was completed.

    The limit is computed for the mean lengths of the requests and the mean number of concurrent streams. By
    Little's law, this is the sum of the latencies over `seconds`, rounded up. Prompt tokens from a cache cost
    nothing, and adapters are not counted, so the limit is never too low.
    """
    done = [record for record in records if record.outcome == "completed" and record.completion_tokens]
    if not done or seconds <= 0:
        return None
    streams = max(1, math.ceil(sum(record.latency for record in done) / seconds))
    prompt = sum(record.prompt_tokens - record.cached_tokens for record in done) / len(done)
    answer = sum(record.completion_tokens for record in done) / len(done)
    return tokens_per_second(
        found.model, found.device, streams, max(1, math.floor(prompt)), max(1, math.floor(answer))
    )
