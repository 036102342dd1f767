"""The environment in which the tests meet a device that is not the CPU: WebGPU over Vulkan in software.

    python -m tests.device.environment      print what starts its Python, after making it if need be

ONNX Runtime has one flavour in an environment, and `onnxruntime-webgpu` is not the one that serves on the
CPU, so it has a place of its own, outside any checkout; Mesa's software Vulkan lies in it too (`mesa`).
What is installed follows from pyproject.toml, less torch and what goes with it.

Only the standard library, so that any Python of 3.11 or later can run it. Linux on x86-64 only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from tests.device import mesa
from tests.environments import PYTHON, alone, default_cache, distribution, keep_newest, move, print_line, run

WEBGPU = "1.27.0"
FLAVOUR = f"onnxruntime-webgpu=={WEBGPU}"
NOT_BESIDE_WEBGPU = frozenset({"onnxruntime", "onnxruntime-windowsml"})
"""Other flavours of ONNX Runtime: they share a folder."""
TESTS_NEED = frozenset({"aiohttp", "httpx", "hypothesis", "openai", "pytest", "pytest-timeout"})
"""Of the tests' own list; what trains, and torch above all, is left out."""
RECIPE = 1
"""Raised with every change here or in `mesa` that makes another environment from the same lists."""
START = "python-on-device"
"""In `bin`: Python with the device's libraries."""

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = ROOT / "pyproject.toml"
PROBE = Path(__file__).with_name("probe.py")


def main() -> None:
    """Print the path of what starts Python; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of the environments (default: ~/.cache/oneseek)")
    cache = Path(parser.parse_args().cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        folder = cache / f"webgpu-{WEBGPU}-{PYTHON}-{key()}"
        if not folder.exists():
            make(folder)
        os.utime(folder)
        keep_newest(cache, f"webgpu-*-{PYTHON}-*")
    print(folder / "bin" / START)


def key() -> str:
    """Everything that decides what is installed, in 12 digits."""
    decides = [str(RECIPE), os.environ.get("VK_DRIVER_FILES", ""), *requirements()]
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]


def requirements() -> list[str]:
    """The serving set with the device's flavour of ONNX Runtime, and what these tests need."""
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    serving: list[str] = project["project"]["dependencies"]
    tests: list[str] = project["dependency-groups"]["test"]
    return [
        FLAVOUR,
        *(line for line in serving if distribution(line) not in NOT_BESIDE_WEBGPU),
        *(line for line in tests if distribution(line) in TESTS_NEED),
    ]


def make(folder: Path) -> None:
    """Install into a temporary folder, look that the device computes, and give it its name."""
    print_line(f"installing {FLAVOUR} and a software device into {folder} (once; about 0.5 GiB, a minute)")
    began = time.monotonic()
    for abandoned in folder.parent.glob("webgpu-*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    run(sys.executable, "-m", "venv", str(part))
    if not mesa.own_driver():
        mesa.unpack(part / "mesa")
    pip = [str(part / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "install", "--quiet", *requirements())
    write_start(part)
    run(str(part / "bin" / START), str(PROBE))
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


def write_start(folder: Path) -> None:
    """A script, for the loader reads where libraries lie before Python could say."""
    lines = ["#!/bin/sh"]
    if not mesa.own_driver():
        libraries = folder / "mesa"
        lines += [f"export LD_LIBRARY_PATH='{libraries}' VK_DRIVER_FILES='{libraries}/lvp_icd.json'"]
    start = folder / "bin" / START
    start.write_text("\n".join([*lines, f"exec '{folder}/bin/python' \"$@\""]) + "\n")
    start.chmod(0o755)


if __name__ == "__main__":
    main()
