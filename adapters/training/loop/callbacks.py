"""Callbacks of a running training: show progress, collect losses, and stop on request."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adapters.training.loop.interruption import Interruption
from adapters.training.loop.progress import Reporter, Stage


class StopOnInterrupt(TrainerCallback):
    """Saves a checkpoint and stops all processes at the same step, if one of them received a signal."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check for a stop request after each update."""
        if args.world_size > 1:
            wish = torch.tensor([int(self.interruption.asked)], device=args.device)
            torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
            self.interruption.asked = bool(wish.item())
        if self.interruption.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Skip the evaluation of an interrupted epoch: the trainer calls this for those too."""
        epoch = state.epoch or 0.0
        if self.interruption.asked and abs(epoch - round(epoch)) > 1e-6:
            control.should_evaluate = control.should_save = False


class StopOnDivergence(TrainerCallback):
    """Ends a run whose loss is not a number, because all later losses would be NaN too."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop the training if a logged loss is not a finite number."""
        if not all(math.isfinite((logs or {}).get(name, 0.0)) for name in ("loss", "eval_loss")):
            control.should_training_stop = True


class ShowProgress(TrainerCallback):
    """Reports each logged loss and each evaluation to a reporter."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._stack = ExitStack()
        self._stage: Stage | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the progress bar: the number of steps is now known."""
        if state.is_world_process_zero:
            stage = self._reporter.stage(self._name, state.max_steps, state.global_step)
            self._stage = self._stack.enter_context(stage)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Update the bar with new figures."""
        if self._stage is None or logs is None:
            return
        if "loss" in logs:
            shown = {"loss": logs["loss"], "token_accuracy": logs.get("mean_token_accuracy", 0.0)}
            self._stage.step(state.global_step, **shown)
        elif "eval_loss" in logs:
            self._reporter.print_event(
                "held out",
                epoch=round(state.epoch or 0.0, 2),
                loss=round(logs["eval_loss"], 4),
                token_accuracy=round(logs.get("eval_mean_token_accuracy", 0.0), 4),
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the progress bar from the terminal."""
        self.close()

    def close(self) -> None:
        """End the progress bar, even if training failed."""
        self._stage = None
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a run by step."""

    train: tuple[tuple[int, float], ...]
    held_out: tuple[tuple[int, float], ...]
    accuracy: tuple[tuple[int, float], ...] = field(default=())
    """Share of the answer tokens for which the model's most likely token is correct."""
    held_out_accuracy: tuple[tuple[int, float], ...] = field(default=())

    @classmethod
    def of(cls, history: list[dict[str, float]]) -> Curve:
        """Read the losses from a trainer's log history."""

        def points(name: str) -> tuple[tuple[int, float], ...]:
            return tuple((int(entry["step"]), float(entry[name])) for entry in history if name in entry)

        return cls(
            points("loss"),
            points("eval_loss"),
            points("mean_token_accuracy"),
            points("eval_mean_token_accuracy"),
        )
