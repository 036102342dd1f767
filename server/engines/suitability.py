"""Suitability of an engine for this machine, and the NVIDIA GPUs that decide it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

_HIDDEN = ("", "-1", "none", "void", "NoDevFiles")


@dataclass(frozen=True, slots=True)
class Suitability:
    """Says if `auto` would choose an engine on this machine, and why."""

    suits: bool
    reason: str = ""
    warning: str | None = None
    """Warning to log if the engine is not chosen, for example about a GPU that is not used."""


def count_gpus(environ: Mapping[str, str]) -> int:
    """Count the NVIDIA GPUs that a process with `environ` may use; 0 if there is no driver.

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
