"""Run a module that needs torch in a child process, so that the caller does not import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class ChildError(RuntimeError):
    """The child process failed. The message is the last line that it wrote."""


def run_in_child(module: str, arguments: Sequence[str] = (), given: str = "") -> str:
    """Run `python -m module` with `given` as standard input, and return its last line. Raises
    `ChildError`.
    """
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
        raise ChildError(f"{module} was killed by signal {-done.returncode}; it may have run out of memory")
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or [f"{module} failed"])[-1][:300])
    return (done.stdout.strip().splitlines() or [""])[-1]
