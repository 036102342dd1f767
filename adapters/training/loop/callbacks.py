"""Callbacks for the transformers trainer: show progress, collect losses, and stop on request."""

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
    """Stops training after a stop signal. It saves a checkpoint and stops all processes of the run at the
    same step, even if only one received the signal.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check after each update whether the user asked to stop. If so, save a checkpoint and stop
        training.
        """
        if args.world_size > 1:
            wish = torch.tensor([int(self.interruption.asked)], device=args.device)
            torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
            self.interruption.asked = bool(wish.item())
        if self.interruption.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Skip the evaluation and checkpoint if the epoch was interrupted, because the trainer calls this
        method for interrupted epochs too.
        """
        epoch = state.epoch or 0.0
        if self.interruption.asked and abs(epoch - round(epoch)) > 1e-6:
            control.should_evaluate = control.should_save = False


class StopOnDivergence(TrainerCallback):
    """Stops training as soon as a loss is not a finite number, because every later loss would be NaN too."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Stop training if a logged loss is not a finite number."""
        if not all(math.isfinite((logs or {}).get(name, 0.0)) for name in ("loss", "eval_loss")):
            control.should_training_stop = True


class ShowProgress(TrainerCallback):
    """Shows each logged loss and each held-out evaluation through a progress reporter."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._stack = ExitStack()
        self._stage: Stage | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the progress bar, now that the number of steps is known."""
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
        """Update the progress bar with a logged loss, or print a held-out evaluation."""
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
        """Remove the progress bar from the terminal when training ends."""
        self.close()

    def close(self) -> None:
        """Remove the progress bar. Call this also if training failed."""
        self._stage = None
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses and token accuracies of a training run, each as pairs of step and value."""

    train: tuple[tuple[int, float], ...]
    held_out: tuple[tuple[int, float], ...]
    accuracy: tuple[tuple[int, float], ...] = field(default=())
    """Fraction of the answer tokens that equal the model's most likely token, at each step."""
    held_out_accuracy: tuple[tuple[int, float], ...] = field(default=())

    @classmethod
    def of(cls, history: list[dict[str, float]]) -> Curve:
        """Read the losses and token accuracies from a transformers trainer's log history."""

        def points(name: str) -> tuple[tuple[int, float], ...]:
            return tuple((int(entry["step"]), float(entry[name])) for entry in history if name in entry)

        return cls(
            points("loss"),
            points("eval_loss"),
            points("mean_token_accuracy"),
            points("eval_mean_token_accuracy"),
        )
