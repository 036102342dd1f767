"""Checkpoints of a training run: one folder for each saved step, written atomically. A resumed run continues
from the newest checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from adapters.files.atomic import flush_folder, flush_tree, rename_folder
from adapters.files.full import naming

_STATE = "training.json"
_PREFIX = "step-"


class Checkpoints:
    """Saves and loads the checkpoints of a run in `folder`. accelerate stores weights and optimizers; the
    other state is a JSON file.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder, self._accelerator = folder, accelerator

    def load(self) -> Mapping[str, Any] | None:
        """Load the newest checkpoint into the model and optimizers, and return the JSON state saved with it.
        None if there is no checkpoint.
        """
        newest = last_checkpoint(self._folder)
        if newest is None:
            return None
        self._accelerator.load_state(str(newest))
        state: dict[str, Any] = json.loads((newest / _STATE).read_text(encoding="utf-8"))
        # accelerate skips random states that it cannot read; without them, a resumed run is not bit-exact.
        name = _random_states(self._accelerator)
        torch.set_rng_state(torch.load(newest / name, weights_only=True))
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Save a checkpoint of `step` with the JSON `state`, and delete older checkpoints. All processes of
        the run must call this together.
        """
        target = self._folder / f"{_PREFIX}{step}"
        if target.exists():
            return
        temporary = self._folder / f".{target.name}.tmp"
        try:
            with naming(self._folder):
                self._write(temporary, target, state)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # it may be what fills the disk
            raise

    def _write(self, temporary: Path, target: Path, state: Mapping[str, Any]) -> None:
        main = self._accelerator.is_main_process
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self._accelerator.wait_for_everyone()
        self._accelerator.save_state(str(temporary), safe_serialization=False)
        torch.save(torch.get_rng_state(), temporary / _random_states(self._accelerator))
        self._accelerator.wait_for_everyone()
        if main:
            (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
            flush_tree(temporary)
            rename_folder(temporary, target)
            flush_folder(self._folder)
            for other in self._folder.iterdir():
                if other != target and other.name.lstrip(".").startswith(_PREFIX):
                    shutil.rmtree(other, ignore_errors=True)
        self._accelerator.wait_for_everyone()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the highest step in `folder`; None if there is none."""
    found = {path: path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*")}
    steps = {int(number): path for path, number in found.items() if number.isascii() and number.isdigit()}
    return steps[max(steps)] if steps else None


def _random_states(accelerator: Accelerator) -> str:
    return f"random-{accelerator.process_index}.pt"
