"""The environment of the tests on a Ray cluster, made once and shared by every checkout.

    python -m tests.ray.environment             print its interpreter, after making it if need be
    python -m tests.ray.environment --relock    choose newer versions and write them to environment.lock

Ray brings an HTTP stack that the server has no use for, so it has a place of its own, outside any checkout.
What is installed follows from pyproject.toml: the serving set, the extra `ray`, and what runs the tests.

Only the standard library, so that any Python of 3.11 or later can run it. Linux and macOS.
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

from tests.environments import PYTHON, alone, default_cache, distribution, keep_newest, move, print_line, run

TESTS_NEED = frozenset({"httpx", "hypothesis", "pytest", "pytest-timeout"})
"""Of the tests' own list; torch above all is left out."""
NOT_LOCKED = ("pip==", "setuptools==")
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
        folder = cache / f"ray-{PYTHON}-{key()}"
        if not folder.exists():
            make(folder, ["--constraint", str(LOCK)])
        os.utime(folder)
        keep_newest(cache, f"ray-{PYTHON}-*")
    print(folder / "bin" / "python")


def key() -> str:
    """Everything that decides what is installed, in 12 digits."""
    decides = "\n".join([str(RECIPE), *requirements(), LOCK.read_text(encoding="utf-8")])
    return hashlib.sha256(decides.encode()).hexdigest()[:12]


def requirements() -> list[str]:
    """The serving set, Ray, and what runs the tests."""
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    tests = [line for line in project["dependency-groups"]["test"] if distribution(line) in TESTS_NEED]
    return [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["ray"], *tests]


def make(folder: Path, versions: list[str]) -> None:
    """Install into a temporary folder and give it its name."""
    print_line(f"installing Ray into {folder} (once; about 0.7 GiB, half a minute)")
    began = time.monotonic()
    for abandoned in folder.parent.glob(f"ray-{PYTHON}-*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    run(sys.executable, "-m", "venv", str(part))
    listed = part / "requirements.txt"
    listed.write_text("\n".join(requirements()) + "\n")
    pip = [str(part / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "install", "--quiet", "--requirement", str(listed), *versions)
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


def relock(cache: Path) -> None:
    """Install without the lock, and write down what was chosen."""
    folder = cache / "ray-relock"
    shutil.rmtree(folder, ignore_errors=True)
    make(folder, [])
    frozen = run(str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "freeze")
    lines = [line for line in frozen.splitlines() if "==" in line and not line.startswith(NOT_LOCKED)]
    LOCK.write_text("\n".join(sorted(lines, key=str.lower)) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
