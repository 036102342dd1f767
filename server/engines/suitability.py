"""Describes whether an engine suits this machine, and counts the machine's NVIDIA GPUs."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

_HIDDEN = ("", "-1", "none", "void", "NoDevFiles")


@dataclass(frozen=True, slots=True)
class Suitability:
    """Says whether the setting `auto` would choose an engine on this machine, and why."""

    suits: bool
    reason: str = ""
    warning: str | None = None
    """Warning to log if the engine is not chosen, for example because a GPU stays unused."""


def count_gpus(environ: Mapping[str, str]) -> int:
    """Count the NVIDIA GPUs that a process with the environment `environ` may use; 0 without a driver.

    Asks NVML instead of CUDA: once a process has initialized CUDA, processes forked from it cannot use CUDA.
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
