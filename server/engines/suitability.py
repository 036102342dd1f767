"""Whether an engine suits this machine, and the NVIDIA GPUs that decide it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

_HIDDEN = ("", "-1", "none", "void", "NoDevFiles")


@dataclass(frozen=True, slots=True)
class Suitability:
    """Whether an engine is chosen if nobody names one."""

    suits: bool
    reason: str = ""
    warning: str | None = None
    """What an operator should know if it is passed over."""


def count_gpus(environ: Mapping[str, str]) -> int:
    """NVIDIA GPUs that a process with `environ` may use; 0 where there is no driver.

    Asks NVML, not CUDA: a process that has opened CUDA cannot share it with those that it starts.
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in _HIDDEN:
        return 0
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() != 0:
        return 0
    try:
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return 0
    finally:
        nvml.nvmlShutdown()
    return count.value if visible is None else min(count.value, len(visible.split(",")))
