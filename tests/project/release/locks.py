"""Locks for users and releases: exact versions with hashes, one file for what serves and one for each extra.

    python -m tests.project.release.locks     # choose the newest versions and write locks/*.txt

uv resolves for every platform at once. torch and what CUDA needs are left out, as they come from where each
machine takes its torch; docs/install.md says how the two go together.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ROOT / "locks"
SERVE = "serve"
"""The lock of what serves, without any extra."""
NOT_LOCKED = re.compile(r"(torch|torchvision|torchaudio|triton|cuda-|nvidia-)[a-z0-9-]*\b")
UNLOCKED_EXTRAS = frozenset({"vllm", "webgpu"})
"""vLLM pins nearly all of what it needs itself; WebGPU's is one pin, in the place of another flavour."""


def wanted() -> dict[str, list[Requirement]]:
    """Each lock, with the requirements that pyproject.toml states for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    serve = [Requirement(text) for text in project["dependencies"]]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    named = {
        name: [*serve, *map(Requirement, texts)]
        for name, texts in extras.items()
        if name not in UNLOCKED_EXTRAS
    }
    return {SERVE: serve, **named}


def path(name: str) -> Path:
    """The file of a lock."""
    return LOCKS / f"{name}.txt"


def write(uv: Path, name: str) -> None:
    """Resolve and write one lock."""
    extra = [] if name == SERVE else ["--extra", name]
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command = [str(uv), "pip", "compile", "--quiet", "--no-emit-index-url", *options, "pyproject.toml"]
    done = subprocess.run([*command, *extra], cwd=ROOT, check=True, capture_output=True, text=True)
    kept, keep = list[str](), True
    for line in done.stdout.splitlines():
        if not line.startswith(" "):
            keep = NOT_LOCKED.match(line) is None
        if keep:
            kept.append(line)
    path(name).write_text("\n".join(kept) + "\n", encoding="utf-8")


def main() -> None:
    """Write every lock."""
    LOCKS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        scripts = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin")
        subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", "uv>=0.9"], check=True)
        for name in wanted():
            print(f"locking {name}", flush=True)
            write(scripts / "uv", name)


if __name__ == "__main__":
    main()
