"""The environment of the tests of vLLM replicas on Ray: Ray laid over the environment of `make test-vllm`.

    python -m tests.ray.vllm_environment "$(python -m tests.vllm.environment)"     print its interpreter

It holds only what Ray brings. All else is imported from the environment of vLLM, which is named by its
interpreter and stays as it is. Versions come from both locks, and vLLM's win.

Only the standard library, so that any Python of 3.11 or later can run it. Linux only, as vLLM's wheel is.
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
from tests.ray.environment import LOCK, PYPROJECT
from tests.vllm.environment import LOCK as VLLM_LOCK

RECIPE = 1
"""Raised with every change here that makes another environment from the same lists."""


def main() -> None:
    """Print the path of the interpreter; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("vllm", type=Path, help="interpreter of the environment of vLLM")
    parser.add_argument("--cache", default="", help="folder of the environments (default: ~/.cache/oneseek)")
    arguments = parser.parse_args()
    cache = Path(arguments.cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        folder = cache / f"ray-vllm-{PYTHON}-{key(arguments.vllm)}"
        if not folder.exists():
            make(folder, arguments.vllm)
        os.utime(folder)
        keep_newest(cache, f"ray-vllm-{PYTHON}-*")
    print(folder / "bin" / "python")


def key(vllm: Path) -> str:
    """Everything that decides what is installed, in 12 digits."""
    decides = "\n".join([str(RECIPE), str(vllm), *requirements(), *versions()])
    return hashlib.sha256(decides.encode()).hexdigest()[:12]


def requirements() -> list[str]:
    """The extra `ray`."""
    project: dict[str, Any] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    return project["project"]["optional-dependencies"]["ray"]


def versions() -> list[str]:
    """The lock of vLLM's environment, and of Ray's what the other does not name."""
    ours = VLLM_LOCK.read_text(encoding="utf-8").splitlines()
    named = {distribution(line) for line in ours}
    return ours + [
        line for line in LOCK.read_text(encoding="utf-8").splitlines() if distribution(line) not in named
    ]


def make(folder: Path, vllm: Path) -> None:
    """Install into a temporary folder, look that both can be imported, and give it its name."""
    print_line(f"installing Ray over vLLM into {folder} (once; about 0.3 GiB, half a minute)")
    began = time.monotonic()
    for abandoned in folder.parent.glob(f"ray-vllm-{PYTHON}-*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    run(sys.executable, "-m", "venv", str(part))
    (own,) = part.glob("lib/python*/site-packages")
    (below,) = vllm.parents[1].glob("lib/python*/site-packages")
    (own / "vllm.pth").write_text(f"{below}\n", encoding="utf-8")
    asked, locked = part / "requirements.txt", part / "versions.txt"
    asked.write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    locked.write_text("\n".join(versions()) + "\n", encoding="utf-8")
    python = str(part / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # pip sees what vLLM's environment holds, and installs only the rest.
    run(*pip, "install", "--quiet", "--requirement", str(asked), "--constraint", str(locked))
    run(python, "-c", "import ray.serve, vllm.v1.engine.async_llm")
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
