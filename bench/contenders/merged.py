"""Make copies of a base, with an adapter merged into the weights or without adapters, for the servers of a
benchmark.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.contenders.launch import ROOT


def merged(python: Path, base: Path, name: str, adapter: Path, out: Path) -> Path:
    """Return the folder `out` with `adapter` merged into `base`. Run `oneseek merge` if the folder does not
    exist. Raises `RuntimeError` with the error output of the command.
    """
    if (out / "config.json").is_file():
        return out
    command = [str(python), "-m", "server", "merge", "--base-model", str(base), "--adapter", name]
    command += ["--adapters", f"{name}={adapter}", "--output", str(out), "--check", "tensors"]
    command += ["--home", str(out.parent / "home-merge")]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"oneseek merge failed for the adapter {name}: {done.stderr.strip()[-1000:]}")
    return out


def plain_copy(base: Path, out: Path) -> Path:
    """Return a copy of the base in the folder `out`, which has no adapters beside it. Files are hard links if
    possible.
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in base.iterdir():
        target = out / file.name
        if file.is_file() and not target.exists():
            try:
                os.link(file, target)
            except OSError:
                shutil.copy2(file, target)
    return out
