"""What a measurement ran on: the GPU, its driver, the versions of what matters; and the memory in use."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MIB = 1 << 20
VERSIONS = """
import importlib.metadata as m, json
found = {}
for name in "vllm torch transformers flashinfer-python triton starlette uvicorn aiohttp".split():
    for distribution in (name, name + "-cpu"):
        try:
            found.setdefault(name, m.version(distribution))
        except m.PackageNotFoundError:
            pass
try:
    import torch
    found["torch"], found["torch CUDA"] = torch.__version__, torch.version.cuda
except ImportError:
    pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as `nvidia-smi` describes it."""

    index: str
    name: str
    memory_mib: int
    driver: str
    cuda: str
    """The newest CUDA that the driver runs."""

    def used_mib(self) -> int:
        """Memory in use by everyone; 0 where the driver does not tell."""
        told = _smi("--query-gpu=memory.used", self.index)
        return int(told) if told.isascii() and told.isdigit() else 0


def find_gpu(environ: Mapping[str, str] | None = None) -> Gpu | None:
    """The first GPU that a server would use; `None` where there is no `nvidia-smi` or it finds none."""
    visible = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES", "0")
    index = visible.split(",")[0].strip()
    if shutil.which("nvidia-smi") is None or not index:
        return None
    try:
        described = _smi("--query-gpu=name,memory.total,driver_version", index)
        banner = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60).stdout
    except (subprocess.SubprocessError, OSError):
        return None
    return parse_gpu(index, described, banner)


def parse_gpu(index: str, described: str, banner: str) -> Gpu:
    """From the line of `--query-gpu=name,memory.total,driver_version` and the table that it prints alone."""
    name, memory, driver = (part.strip() for part in described.split(","))
    cuda = re.search(r"CUDA[ \w]*Version:\s*([\d.]+)", banner)
    return Gpu(index, name, int(float(memory)), driver, cuda[1] if cuda else "unknown")


def _smi(query: str, index: str) -> str:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", index]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return run.stdout.strip().splitlines()[0]


def used_mib(gpu: Gpu | None, process: int) -> int:
    """Memory in use: the GPU's, or without one what the server's processes hold; 0 once they have ended."""
    if gpu:
        return gpu.used_mib()
    try:
        root = psutil.Process(process)
        return sum(member.memory_info().rss for member in (root, *root.children(recursive=True))) // MIB
    except psutil.NoSuchProcess:
        return 0


def wait_until_free(gpu: Gpu, before_mib: int, wait: float = 60) -> int:
    """Wait until a stopped server's memory is given back, within 1 GiB; returns what is in use then."""
    deadline = time.monotonic() + wait
    while (used := gpu.used_mib()) > before_mib + 1024 and time.monotonic() < deadline:
        time.sleep(0.5)
    return used


def describe(gpu: Gpu | None, python: Path, commit: str | None) -> dict[str, Any]:
    """What a result must say of its host; `python` is the interpreter that runs the servers."""
    versions = subprocess.run([str(python), "-c", VERSIONS], capture_output=True, text=True)
    return {
        "gpu": asdict(gpu) if gpu else None,
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": json.loads(versions.stdout or "{}"),
        "oneseek": commit or _commit(),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor()


def _commit() -> str:
    """The commit of this tree, with a mark where files differ from it."""
    here = Path(__file__).parent.parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return "unknown"
