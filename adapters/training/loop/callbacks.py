"""What goes along with a running training: the progress, the losses, and a wish to stop."""

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
    """Saves a checkpoint and stops, on every process at the same step, where any was asked to."""

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After each update."""
        if args.world_size > 1:
            wish = torch.tensor([int(self.interruption.asked)], device=args.device)
            torch.distributed.all_reduce(wish, op=torch.distributed.ReduceOp.MAX)
            self.interruption.asked = bool(wish.item())
        if self.interruption.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The trainer comes here from a broken off epoch too, which is not to be judged as a whole one."""
        epoch = state.epoch or 0.0
        if self.interruption.asked and abs(epoch - round(epoch)) > 1e-6:
            control.should_evaluate = control.should_save = False


class StopOnDivergence(TrainerCallback):
    """Ends a run whose loss is not a number: what follows would be none either."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """New figures."""
        if not all(math.isfinite((logs or {}).get(name, 0.0)) for name in ("loss", "eval_loss")):
            control.should_training_stop = True


class ShowProgress(TrainerCallback):
    """Tells a reporter of each logged loss, and of each evaluation."""

    def __init__(self, reporter: Reporter, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._stack = ExitStack()
        self._stage: Stage | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The number of steps is known."""
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
        """New figures."""
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
        """The bar goes."""
        self.close()

    def close(self) -> None:
        """End the bar, also where training failed."""
        self._stage = None
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of a run, by step."""

    train: tuple[tuple[int, float], ...]
    held_out: tuple[tuple[int, float], ...]
    accuracy: tuple[tuple[int, float], ...] = field(default=())
    """Share of the answer tokens whose likeliest token is the right one."""
    held_out_accuracy: tuple[tuple[int, float], ...] = field(default=())

    @classmethod
    def of(cls, history: list[dict[str, float]]) -> Curve:
        """From a trainer's log history."""

        def points(name: str) -> tuple[tuple[int, float], ...]:
            return tuple((int(entry["step"]), float(entry[name])) for entry in history if name in entry)

        return cls(
            points("loss"),
            points("eval_loss"),
            points("mean_token_accuracy"),
            points("eval_mean_token_accuracy"),
        )
