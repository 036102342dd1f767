"""The process that reads a pickle: what it may do, what torch may read in it, and a machine without torch."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.errors import AdapterError, RegistryError
from adapters.pth.conversion import ConversionLimits, convert_file
from adapters.pth.unpickle import RefusedError, main
from adapters.pth.unpickle import extract_lora as convert_here
from tests.adapters.pth.pickles import lora, saved


def test_without_torch_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        assert name == "torch"

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    with pytest.raises(RegistryError, match=r"pip install 'oneseek\[train\]'"):
        convert_file(saved(tmp_path, lora()), tmp_path / "out")


def test_torch_reads_weights_alone_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def load(_file: Path, **options: Any) -> object:
        asked.append(options)
        raise pickle.UnpicklingError("unsupported global")

    file = saved(tmp_path, lora())
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RefusedError, match="unsupported global"):
        convert_here(file, tmp_path, ConversionLimits())
    assert [options["weights_only"] for options in asked] == [True]


@pytest.mark.parametrize("version", ["2.9.1", "2.6.0+cpu", "1.13.1"])
def test_a_torch_whose_weights_only_can_be_deceived_reads_nothing(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path, lora())
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(RefusedError, match=re.escape(version)):
        convert_here(file, tmp_path, ConversionLimits())


def test_the_process_that_reads_a_pickle_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("no such bounds here")
    import resource

    bounds: dict[int, int] = {}

    def setrlimit(kind: int, pair: tuple[int, int]) -> None:
        bounds[kind] = pair[0]

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    file = saved(tmp_path, lora())
    limits = ConversionLimits(seconds=7, tensor_bytes=1 << 20, memory_bytes=1 << 30)
    assert main([str(file), str(tmp_path), json.dumps(asdict(limits))]) == 0
    assert bounds[resource.RLIMIT_CPU] == 7
    assert bounds[resource.RLIMIT_FSIZE] == (1 << 20) + (64 << 20)
    assert bounds[resource.RLIMIT_CORE] == 0
    if Path("/proc/self/statm").exists():
        assert 1 << 30 < bounds[resource.RLIMIT_AS] < 1 << 44


def test_the_process_that_reads_a_pickle_has_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Mapping[str, str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        given.append(options["env"])
        return subprocess.CompletedProcess(command, 1, b"", b"stopped")

    file = saved(tmp_path, lora())
    monkeypatch.setenv("ONESEEK_API_KEYS", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(AdapterError, match="stopped"):
        convert_file(file, tmp_path / "out")
    assert "secret" not in given[0].values()
    assert "PATH" in given[0]
