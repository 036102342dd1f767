"""Checkpoints appear whole, also where Windows holds a file of one open for a moment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from adapters.files import atomic
from adapters.training.loop.checkpoints import Checkpoints, last_checkpoint
from tests.adapters.files.disk import full


def test_a_checkpoint_waits_for_a_scanner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, Accelerator(cpu=True))
    checkpoints.save(1, {"done": 1})
    rename, refusals = os.rename, iter((True, True, False))

    def scanned(source: Path, target: Path) -> None:
        if next(refusals):
            raise PermissionError(13, "The process cannot access the file")
        rename(source, target)

    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(os, "rename", scanned)
    checkpoints.save(2, {"done": 2})
    assert last_checkpoint(tmp_path) == tmp_path / "step-2"
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]
    assert checkpoints.load() == {"done": 2}


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_no_half_of_another(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, Accelerator(cpu=True))
    checkpoints.save(1, {"done": 1})
    with full(1000), pytest.raises(OSError, match=str(tmp_path)):
        checkpoints.save(2, {"done": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert checkpoints.load() == {"done": 1}
    checkpoints.save(2, {"done": 2})
    assert checkpoints.load() == {"done": 2}
