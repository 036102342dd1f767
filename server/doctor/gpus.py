"""Read the machine's NVIDIA GPUs and their driver from NVIDIA's library NVML. Opens no CUDA context."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.doctor.findings import Finding, fault, ok, warning
from server.doctor.subject import Subject
from server.engines.embedded.runners.available import format_bytes
from server.engines.kinds import choose_engine
from server.engines.suitability import count_gpus

LIBRARY = "libnvidia-ml.so.1"
DEVICES = Path("/dev")
_TEXT = 96
"""Buffer size in bytes for the text of a GPU's name or a driver's version. NVML's own limits are 96 and
80.
"""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True, slots=True)
class NvidiaGpu:
    """One GPU of this machine. Sizes are in bytes."""

    name: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver, with the GPUs that it sees."""

    version: str
    gpus: tuple[NvidiaGpu, ...]


def read_driver(library: Any = None) -> Driver | None:
    """Return the driver and its GPUs, read by NVML. None if there is no driver. Tests pass a fake NVML as
    `library`.
    """
    try:
        nvml: Any = ctypes.CDLL(LIBRARY) if library is None else library
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    try:
        version = ctypes.create_string_buffer(_TEXT)
        nvml.nvmlSystemGetDriverVersion(version, _TEXT)
        count = ctypes.c_uint(0)
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        gpus = tuple(gpu for index in range(count.value) for gpu in _gpu(nvml, index))
    finally:
        nvml.nvmlShutdown()
    return Driver(version.value.decode("utf-8", "replace") or "unknown", gpus)


def _gpu(nvml: Any, index: int) -> Iterator[NvidiaGpu]:
    handle, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(_TEXT), _Memory()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return
    nvml.nvmlDeviceGetName(handle, name, _TEXT)
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    yield NvidiaGpu(name.value.decode("utf-8", "replace"), memory.total, memory.free)


def check_gpus(subject: Subject) -> Iterator[Finding]:
    """Report the GPUs, the driver, and the engine that would be chosen."""
    driver = read_driver()
    if driver is None:
        yield from _without_driver()
    elif not driver.gpus:
        remedy = "Run nvidia-smi. If it lists no GPU either, reload the driver or check the card"
        yield warning("gpu", f"NVIDIA's driver {driver.version} is loaded, but finds no GPU", remedy)
    else:
        yield from (ok("gpu", f"driver {driver.version}: {_shown(gpu)}") for gpu in driver.gpus)
        hidden = subject.environ.get("CUDA_VISIBLE_DEVICES")
        if not count_gpus(subject.environ):
            yield warning(
                "gpu",
                f"CUDA_VISIBLE_DEVICES is {hidden!r}, so no GPU is used",
                "Unset CUDA_VISIBLE_DEVICES, unless you want to hide the GPUs",
            )
    yield from _engine(subject)


def _shown(gpu: NvidiaGpu) -> str:
    return f"{gpu.name}, {format_bytes(gpu.total)}, {format_bytes(gpu.free)} free"


def _without_driver() -> Iterator[Finding]:
    if (DEVICES / "nvidia0").exists() or (DEVICES / "nvidiactl").exists():
        yield warning(
            "gpu",
            "an NVIDIA device exists, but the driver's library libnvidia-ml.so.1 was not found",
            "In a container: install the NVIDIA Container Toolkit on the host and start the container with "
            "--gpus all. Elsewhere: install the driver",
        )
        return
    yield ok("gpu", "no NVIDIA GPU (the embedded engine does not need one)")


def _engine(subject: Subject) -> Iterator[Finding]:
    environ: Mapping[str, str] = subject.environ
    kind = subject.settings.engine.kind
    choice = choose_engine(kind, environ)
    if choice.warning is not None:
        yield warning("engine", choice.warning, "Install vLLM, or set engine to embedded")
    elif not (judged := choice.kind.judge(environ)).suits:
        yield fault("engine", f"engine is {kind}, but {judged.reason}", "Set engine to auto or embedded")
    else:
        yield ok("engine", f"{choice.kind.name}: {choice.reason}")
