"""Which engine runs a base where nobody says: vLLM on a machine with an NVIDIA GPU, else the embedded one."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EngineKind = Literal["embedded", "vllm"]

_HIDDEN = ("", "-1", "none", "void", "NoDevFiles")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine, and why it is that one."""

    kind: EngineKind
    reason: str
    warning: str | None = None


def choose_engine(asked: Literal["auto", "embedded", "vllm"], environ: Mapping[str, str]) -> EngineChoice:
    """The engine that `asked` leads to on this machine."""
    if asked != "auto":
        return EngineChoice(asked, "as the settings say")
    gpus = count_gpus(environ)
    if not gpus:
        return EngineChoice("embedded", "no NVIDIA GPU is seen")
    if importlib.util.find_spec("vllm") is None:
        remedy = "vLLM is not installed, so the GPU stays idle: pip install 'oneseek[vllm]'"
        return EngineChoice("embedded", f"{gpus} NVIDIA GPU(s), but no vLLM", remedy)
    return EngineChoice("vllm", f"{gpus} NVIDIA GPU(s)")


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
