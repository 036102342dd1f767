"""The environment that has llama.cpp's server and what writes its files, made once for every checkout.

    python -m tests.bench.live.environment             print its interpreter, after making it if need be
    python -m tests.bench.live.environment --relock    choose newer versions and write them to the lock

What is wanted is in `llama.in`, which versions, by their hashes, in `llama.lock`. Only the standard library,
so that any Python of 3.11 or later can run it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from pathlib import Path

from tests.environments import PYTHON, alone, default_cache, keep_newest, move, print_line, run

HERE = Path(__file__).resolve().parent
WANTED, LOCK = HERE / "llama.in", HERE / "llama.lock"


def main() -> None:
    """Print the path of the interpreter; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of the environments (default: ~/.cache/oneseek)")
    parser.add_argument("--relock", action="store_true", help="choose the newest versions and lock them")
    arguments = parser.parse_args()
    cache = Path(arguments.cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        if arguments.relock:
            relock(cache)
        key = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
        folder = cache / f"llama-{PYTHON}-{key}"
        if not folder.exists():
            make(folder)
        os.utime(folder)
        keep_newest(cache, f"llama-{PYTHON}-*")
    print(folder / "bin" / "python")


def make(folder: Path) -> None:
    """Install into a temporary folder and give it its name."""
    print_line(f"installing llama.cpp's server into {folder} (once; about 0.2 GiB)")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    how = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    run(*virtual_environment(part), "install", "--quiet", *how, "--requirement", str(LOCK))
    move(part, folder)


def virtual_environment(folder: Path) -> list[str]:
    """A new one, and the command that installs into it."""
    run(sys.executable, "-m", "venv", str(folder))
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def relock(cache: Path) -> None:
    """Let uv choose every version, and write down what it chose, by hash and without addresses."""
    folder = cache / "llama-relock"
    shutil.rmtree(folder, ignore_errors=True)
    run(*virtual_environment(folder), "install", "--quiet", "uv")
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command = [str(folder / "bin" / "uv"), "pip", "compile", "--quiet", "--no-emit-index-url", "--upgrade"]
    run(*command, *options, str(WANTED), "--output-file", str(LOCK))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
