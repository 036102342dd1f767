"""Checkpoints appear whole, also where Windows holds a file of one open for a moment."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from adapters.files import atomic
from adapters.training.loop.checkpoints import Checkpoints, last_checkpoint


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
