"""Runs a module that needs torch as a process of its own, so that its caller needs none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class ApartError(RuntimeError):
    """The process failed; the message is the last thing that it said."""


def run_apart(module: str, arguments: Sequence[str] = (), given: str = "") -> str:
    """Run `python -m module` with `given` on standard input and answer its last line. Raises `ApartError`."""
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode < 0:
        raise ApartError(f"{module} was ended by signal {-done.returncode}, for want of memory perhaps")
    if done.returncode:
        raise ApartError((done.stderr.strip().splitlines() or [f"{module} failed"])[-1][:300])
    return (done.stdout.strip().splitlines() or [""])[-1]
