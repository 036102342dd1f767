"""The training loop for base models, and for the adapters of the mini base model. It runs through accelerate
on a CPU, a GPU or several GPUs.

The batch of a step does not depend on the hardware. Each process takes its part of the batch's rows, in
smaller micro-batches if memory is short. The loss of each micro-batch is weighted by the number of tokens
that it predicts.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from adapters.training.loop.answer_loss import AnswerLoss
from adapters.training.loop.checkpoints import Checkpoints
from adapters.training.loop.feed import Feed, TrainingBatch
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.optimizers import MakeOptimizers, muon
from adapters.training.loop.options import OptionError
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule

_POINTS = 400
"""Maximum number of points in the recorded loss curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Options that decide how fast training runs and how much memory it needs. They change the result of
    the training only by rounding.
    """

    precision: Literal["bf16", "fp32"] = "bf16"
    micro_rows: int | None = None
    """Maximum number of sequences of a batch that a process computes at once. None: all of its sequences."""
    gradient_checkpointing: bool = False
    save_every: float = 60.0
    """Seconds between two checkpoints."""
    judge_every: int | None = None
    """Number of steps between two held-out evaluations. None: evaluate only at the end of training."""


@dataclass(slots=True)
class TrainOutcome:
    """The figures of a training run: steps, tokens, loss and seconds."""

    steps: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    loss: float = float("nan")
    """Exponential moving average of the training loss over about the last 50 steps."""
    seconds: float = 0.0


@dataclass(slots=True)
class TrainerResult:
    """Result of a training run that finished or was interrupted: its figures and loss curves."""

    outcome: TrainOutcome
    interrupted: bool = False
    losses: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    """Training losses as pairs of step and loss. In a long run, each loss is the mean over several steps."""
    held_out: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    pending: list[float] = field(default_factory=list[float])
    """Losses of the steps since the last point of the training loss curve."""


class Trainer:
    """Trains `model` in place on the batches of `feed`. If there is a checkpoint, training continues from the
    newest one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        feed: Feed,
        schedule: Schedule,
        reporter: Reporter,
        *,
        stage: str,
        checkpoints: Path,
        setup: Setup | None = None,
        make_optimizers: MakeOptimizers = muon,
        held_out: TrainingBatch | None = None,
        interruption: Interruption | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self._feed, self._schedule, self._reporter, self._stage = feed, schedule, reporter, stage
        self._setup = setup or Setup()
        self._held_out, self._interruption = held_out, interruption or Interruption()
        self.accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
        if self._setup.gradient_checkpointing:
            _checkpoint_activations(model)
        paced = make_optimizers(model, schedule)
        loss = AnswerLoss(model, self._setup.precision)
        prepared = self.accelerator.prepare(loss, *(optimizer for optimizer, _ in paced))
        self._loss: torch.nn.Module = prepared[0]
        self._optimizers: Sequence[torch.optim.Optimizer] = prepared[1:]
        self._peaks = [peak for _, peak in paced]
        self._checkpoints = Checkpoints(checkpoints, self.accelerator)
        self._fitted = TrainerResult(TrainOutcome())

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The model's weights by name, gathered from all processes. All processes of the run must read this
        together.
        """
        found = cast("Mapping[str, torch.Tensor]", self.accelerator.get_state_dict(self._loss))
        return {name.removeprefix("model."): value for name, value in found.items()}

    def run(self) -> TrainerResult:
        """Train for all remaining steps, and return the result. After Ctrl-C, save a checkpoint and return
        early.
        """
        done = self._resume()
        self._loss.train()
        schedule, fitted, outcome = self._schedule, self._fitted, self._fitted.outcome
        started, saved_at, before = time.monotonic(), time.monotonic(), outcome.seconds
        with self._reporter.stage(self._stage, schedule.steps, done) as shown, self._interruption.listening():
            for step in range(done, schedule.steps):
                batch = self._feed.batch(step)
                if step == done and schedule.compiled:
                    self._unwrapped.compile_for(batch.ids.shape)
                value = self._step(step, batch)
                weight = max(0.02, 1 / (step + 1))
                outcome.loss = value if step == 0 else (1 - weight) * outcome.loss + weight * value
                outcome.steps = step + 1
                outcome.tokens += batch.fresh
                outcome.answer_tokens += int(batch.counts.sum())
                outcome.seconds = before + time.monotonic() - started
                self._note(step + 1, value)
                shown.step(step + 1, loss=outcome.loss)
                save, stop = self._wishes(time.monotonic() - saved_at > self._setup.save_every)
                if stop and step + 1 < schedule.steps:
                    fitted.interrupted = True
                    self._keep(step + 1)
                    return fitted
                if save:
                    self._keep(step + 1)
                    saved_at = time.monotonic()
        self._keep(schedule.steps)
        self._loss.eval()
        return fitted

    @property
    def _unwrapped(self) -> AnswerLoss:
        found = self.accelerator.unwrap_model(self._loss)
        assert isinstance(found, AnswerLoss)
        return found

    def _resume(self) -> int:
        state = self._checkpoints.load()
        if state is None:
            return 0
        self._fitted = TrainerResult(
            TrainOutcome(**state["outcome"]),
            losses=[(int(step), float(value)) for step, value in state["losses"]],
            held_out=[(int(step), float(value)) for step, value in state["held_out"]],
            pending=[float(value) for value in state["pending"]],
        )
        self._feed.restore(state["feed"])
        self._reporter.print_event("resumed", stage=self._stage, done=state["done"], of=self._schedule.steps)
        return int(state["done"])

    def _keep(self, done: int) -> None:
        fitted = self._fitted
        state = {
            "done": done,
            "outcome": asdict(fitted.outcome),
            "losses": fitted.losses,
            "held_out": fitted.held_out,
            "pending": fitted.pending,
            "feed": dict(self._feed.state()),
        }
        self._checkpoints.save(done, state)

    def _step(self, step: int, batch: TrainingBatch) -> float:
        """Update the weights with the batch of one step. Return the mean loss over the whole batch."""
        total, value = batch.targets, 0.0
        pieces = list(self._pieces(batch))
        for number, piece in enumerate(pieces, 1):
            share = piece.targets / total if total else 0.0
            with self._quiet(last=number == len(pieces)):
                loss = self._piece_loss(piece)
                processes = self.accelerator.num_processes
                whole = len(pieces) == processes == 1
                self.accelerator.backward(loss if whole else loss * (share * processes))
            value += loss.item() if whole else loss.item() * share
        self.accelerator.clip_grad_norm_(self._loss.parameters(), self._schedule.clip)
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * self._schedule.factor(step)
            optimizer.step()
            optimizer.zero_grad()
        return self._sum(value)

    def _piece_loss(self, piece: TrainingBatch) -> torch.Tensor:
        return self._loss(piece.ids, piece.counts, piece.positions)

    def _quiet(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients are not synchronised between processes, except for the last
        micro-batch of a step.
        """
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self._loss)

    def _pieces(self, batch: TrainingBatch) -> Iterator[TrainingBatch]:
        """Yield this process's sequences of the batch as micro-batches, which are computed one by one."""
        rows, processes = len(batch.ids), self.accelerator.num_processes
        if rows % processes:
            raise OptionError(
                "batch_size",
                f"{rows} sequences cannot be divided evenly among {processes} processes; use a multiple of "
                "the number of processes",
            )
        share = batch.rows(slice(self.accelerator.process_index, None, processes))
        size = self._setup.micro_rows or len(share.ids)
        for start in range(0, len(share.ids), size):
            yield share.rows(slice(start, start + size)).to(self.accelerator.device)

    def _judge(self, step: int) -> None:
        """Measure the loss on the held-out sequences without training on them, and record and print it."""
        if self._held_out is None or any(at == step for at, _ in self._fitted.held_out):
            return
        self._loss.eval()
        total, value = self._held_out.targets, 0.0
        with torch.no_grad():
            for piece in self._pieces(self._held_out):
                value += self._piece_loss(piece).item() * piece.targets / total
        self._loss.train()
        value = self._sum(value)
        self._fitted.held_out.append((step, value))
        self._reporter.print_event("held out", stage=self._stage, step=step, loss=round(value, 4))

    def _sum(self, value: float) -> float:
        """Return the sum of `value` over all processes of the run."""
        if self.accelerator.num_processes == 1:
            return value
        mine = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        torch.distributed.all_reduce(mine)
        return float(mine.item())

    def _wishes(self, late: bool) -> tuple[bool, bool]:
        """Return whether to save a checkpoint and whether to stop. All processes get the same result: each is
        True if any process wants it.
        """
        wishes = (late, self._interruption.asked)
        if self.accelerator.num_processes == 1:
            return wishes
        common = torch.tensor([int(wish) for wish in wishes], device=self.accelerator.device)
        torch.distributed.all_reduce(common, op=torch.distributed.ReduceOp.MAX)
        return bool(common[0].item()), bool(common[1].item())

    def _note(self, step: int, value: float) -> None:
        """Record the loss of one step. Losses are averaged over several steps so that the loss curve stays
        short.
        """
        fitted = self._fitted
        fitted.pending.append(value)
        if len(fitted.pending) >= math.ceil(self._schedule.steps / _POINTS) or step == self._schedule.steps:
            fitted.losses.append((step, sum(fitted.pending) / len(fitted.pending)))
            fitted.pending.clear()
        every = self._setup.judge_every
        if step == self._schedule.steps or (every is not None and step % every == 0):
            self._judge(step)


def _checkpoint_activations(model: PreTrainedModel) -> None:
    """Let the model recompute activations in the backward pass to save memory. transformers 6 has another
    name for this method than version 5.
    """
    enable: Any = getattr(model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
