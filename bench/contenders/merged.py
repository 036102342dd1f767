"""A base with an adapter merged into it, made by OneSeek's own command."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.contenders.launch import ROOT


def merged(python: Path, base: Path, name: str, adapter: Path, out: Path) -> Path:
    """The folder of `base` + `adapter`, made once. Raises `RuntimeError` with what the command said."""
    if (out / "config.json").is_file():
        return out
    command = [str(python), "-m", "server", "merge", "--base-model", str(base), "--adapter", name]
    command += ["--adapters", f"{name}={adapter}", "--output", str(out), "--check", "tensors"]
    command += ["--home", str(out.parent / "home-merge")]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"oneseek merge of {name} failed: {done.stderr.strip()[-1000:]}")
    return out


def plain_copy(base: Path, out: Path) -> Path:
    """Return a copy of the base in a separate folder without adapters. Files are linked if possible."""
    out.mkdir(parents=True, exist_ok=True)
    for file in base.iterdir():
        target = out / file.name
        if file.is_file() and not target.exists():
            try:
                os.link(file, target)
            except OSError:
                shutil.copy2(file, target)
    return out
