"""Describe the machine of a benchmark: its GPU, driver and package versions, and the memory in use."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MIB = 1 << 20
VERSIONS = """
import importlib.metadata as m, importlib.util as u, json, pathlib, runpy
found = {}
names = "vllm torch transformers peft onnxruntime flashinfer-python triton starlette uvicorn aiohttp"
for name in names.split():
    for distribution in (name, name + "-cpu"):
        try:
            found.setdefault(name, m.version(distribution))
        except m.PackageNotFoundError:
            pass
torch = u.find_spec("torch")
if torch and torch.submodule_search_locations:
    # Without importing torch, which takes seconds.
    about = runpy.run_path(str(pathlib.Path(torch.submodule_search_locations[0]) / "version.py"))
    found["torch"], found["torch CUDA"] = about["__version__"], about.get("cuda")
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as `nvidia-smi` describes it."""

    index: str
    name: str
    memory_mib: int
    driver: str
    cuda: str
    """The newest CUDA version that the driver supports."""

    def used_mib(self) -> int:
        """GPU memory in use by all processes. 0 if the driver does not report it."""
        told = _smi("--query-gpu=memory.used", self.index)
        return int(told) if told.isascii() and told.isdigit() else 0


def find_gpu(environ: Mapping[str, str] | None = None) -> Gpu | None:
    """Return the GPU that a server would use first, according to `CUDA_VISIBLE_DEVICES`. None if there is no
    GPU or no `nvidia-smi`.
    """
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
    """Return the GPU with the given `index`. `described` is a line of `nvidia-smi
    --query-gpu=name,memory.total,driver_version`, and `banner` the output of plain `nvidia-smi`, which has
    the CUDA version.
    """
    name, memory, driver = (part.strip() for part in described.split(","))
    cuda = re.search(r"CUDA[ \w]*Version:\s*([\d.]+)", banner)
    return Gpu(index, name, int(float(memory)), driver, cuda[1] if cuda else "unknown")


def _smi(query: str, index: str) -> str:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", index]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return run.stdout.strip().splitlines()[0]


def used_mib(gpu: Gpu | None, process: int) -> int:
    """Return the memory in use in MiB: GPU memory of all processes, or without a GPU the resident memory of
    the server's processes. 0 if these processes have ended.
    """
    if gpu:
        return gpu.used_mib()
    try:
        root = psutil.Process(process)
        return sum(member.memory_info().rss for member in (root, *root.children(recursive=True))) // MIB
    except psutil.NoSuchProcess:
        return 0


def wait_until_free(gpu: Gpu, before_mib: int, wait: float = 60) -> int:
    """Wait until a stopped server has released its GPU memory, to within 1 GiB of `before_mib`, or `wait`
    seconds have passed. Return the MiB that are in use.
    """
    deadline = time.monotonic() + wait
    while (used := gpu.used_mib()) > before_mib + 1024 and time.monotonic() < deadline:
        time.sleep(0.5)
    return used


def describe(gpu: Gpu | None, python: Path, commit: str | None) -> dict[str, Any]:
    """Return the description of this machine that a result contains. `python` is the interpreter that runs
    the servers.
    """
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
    """Return the commit of this checkout, with the suffix `-dirty` if files were changed since. `unknown`
    without git.
    """
    here = Path(__file__).parent.parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return "unknown"


def main(given: Sequence[str] | None = None) -> None:
    """Print the description of this machine as one JSON object."""
    parser = argparse.ArgumentParser(
        description="Print the description of this machine that reports contain, as JSON."
    )
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="Python interpreter that runs the servers; its package versions are printed",
    )
    print(json.dumps(describe(find_gpu(), parser.parse_args(given).python, None), indent=2))


if __name__ == "__main__":
    main()
