"""Run a module that needs torch in a child process, so that the calling process does not import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


class ChildError(RuntimeError):
    """A child process failed. The message is the last line that the process wrote to standard error, or the
    signal that killed it.
    """


def run_in_child(module: str, arguments: Sequence[str] = (), given: str = "") -> str:
    """Run `python -m module` in a child process with `given` as standard input. Return the last line of its
    output. Raises `ChildError`.
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
        raise ChildError(
            f"the process of {module} was killed by signal {-done.returncode}; it may have run out of memory"
        )
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or [f"{module} failed"])[-1][:300])
    return (done.stdout.strip().splitlines() or [""])[-1]
