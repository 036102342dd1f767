"""What NVML says of GPUs, read without one: the library is stood in for."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from server.config.settings import resolve_settings
from server.doctor import gpus
from server.doctor.gpus import Driver, NvidiaGpu, check_gpus, read_driver
from server.doctor.subject import Subject

GIB = 1 << 30


class Nvml:
    """NVIDIA's library as it is called, with two GPUs of which one does not answer."""

    def __init__(self, count: int = 2, works: bool = True) -> None:
        self.count, self.works, self.shut = count, works, 0

    def nvmlInit_v2(self) -> int:  # noqa: N802 NVIDIA's name
        return 0 if self.works else 9

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shut += 1
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: int) -> int:  # noqa: N802
        assert size >= 80
        text.value = b"580.95.05"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index + 1
        return 15 if index == 1 else 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, text: Any, size: int) -> int:  # noqa: N802
        text.value = f"NVIDIA Test {handle.value}".encode()
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:  # noqa: N802
        memory._obj.total, memory._obj.free = 80 * GIB, 79 * GIB
        return 0


def subject(tmp_path: Path, environ: dict[str, str] | None = None, **flags: str) -> Subject:
    return Subject(resolve_settings(flags, environ={}), None, environ or {}, tmp_path)


def test_a_gpu_that_answers_is_named_with_its_memory() -> None:
    nvml = Nvml()
    assert read_driver(nvml) == Driver("580.95.05", (NvidiaGpu("NVIDIA Test 1", 80 * GIB, 79 * GIB),))
    assert nvml.shut == 1
    assert read_driver(Nvml(works=False)) is None


def test_what_is_seen_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "read_driver", lambda: read_driver(Nvml()))
    found = list(check_gpus(subject(tmp_path, {"CUDA_VISIBLE_DEVICES": ""})))
    assert re.search(r"\b580\.95\.05: NVIDIA Test 1, 80\.0 GiB, 79\.0 GiB\b", found[0].message)
    assert (found[1].severity, "CUDA_VISIBLE_DEVICES" in found[1].message) == ("warning", True)
    monkeypatch.setattr(gpus, "read_driver", lambda: read_driver(Nvml(count=0)))
    assert next(check_gpus(subject(tmp_path))).severity == "warning"


def test_a_device_without_its_library_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "read_driver", lambda: None)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    found = next(check_gpus(subject(tmp_path)))
    assert found.severity == "warning"
    assert "--gpus all" in (found.remedy or "")


def test_an_engine_that_cannot_run_here_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "read_driver", lambda: None)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    found = [
        one
        for one in check_gpus(subject(tmp_path, hidden, **{"engine.kind": "vllm"}))
        if one.check == "engine"
    ]
    assert found[0].severity == "fault"
