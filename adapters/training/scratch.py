"""Training a small causal language model from nothing: Muon for matrices, AdamW for the rest, in bf16.

Muon: Jordan et al. 2024, as `torch.optim.Muon`. The rate warms up, stays, and falls linearly to zero (WSD).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from adapters.training.files import write_atomically
from adapters.training.packing import Batch, Batches
from adapters.training.progress import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast."""

    steps: int
    matrix_rate: float = 4e-3
    """Peak learning rate of Muon, scaled to match AdamW's update size."""
    rate: float = 3e-3
    """Peak learning rate of AdamW, for embeddings and norms."""
    warmup: int = 50
    decay: float = 0.4
    """Share of the steps over which the rate falls to zero."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Largest gradient norm."""
    compiled: bool = False
    """Compile the model for batches of the first one's shape, if g++ is there; 1.3 times as fast."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it must lie in (0, 1]")

    def factor(self, step: int) -> float:
        """The share of the peak rate at `step`."""
        fall = self.decay * self.steps
        return min((step + 1) / self.warmup, 1.0, (self.steps - step) / fall)


def new_model(config: MistralConfig, seed: int) -> MistralForCausalLM:
    """A freshly initialised model."""
    torch.manual_seed(seed)
    model = MistralForCausalLM(config)
    model.set_attn_implementation(
        "eager"
    )  # On CPUs its backward pass beats the flash kernel's at these lengths.
    return model


Body = Callable[..., BaseModelOutputWithPast]


def answer_loss(model: PreTrainedModel, batch: Batch, body: Body | None = None) -> torch.Tensor:
    """Mean cross entropy over the tokens that count; logits are made for those alone.

    `body` takes the place of the model's decoder, such as its compiled form.
    """
    run: Body = model.get_decoder() if body is None else body
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    with torch.autocast("cpu", torch.bfloat16):
        hidden: torch.Tensor = run(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state  # pyright: ignore[reportAssignmentType]
        logits = F.linear(hidden[batch.counts[:, 1:]], head.weight)
    return F.cross_entropy(logits.float(), batch.ids[:, 1:][batch.counts[:, 1:]])


def _optimizers(model: torch.nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    matrices = [
        value for name, value in named if value.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    ids = {id(value) for value in matrices}
    rest = [value for _, value in named if id(value) not in ids]
    return [
        torch.optim.Muon(
            matrices,
            lr=schedule.matrix_rate,
            weight_decay=schedule.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _compiled(model: PreTrainedModel, schedule: Schedule) -> Body | None:
    """The decoder in compiled form, if that is wanted and can be had here."""
    if not schedule.compiled or shutil.which("g++") is None:
        return None
    return torch.compile(model.get_decoder(), dynamic=False)


@dataclass(slots=True)
class Outcome:
    """What a training run did."""

    steps: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    loss: float = float("nan")
    """Mean over the last 50 steps, as a running average."""
    seconds: float = 0.0


def fit(
    model: PreTrainedModel,
    batches: Batches,
    schedule: Schedule,
    reporter: Reporter,
    *,
    stage: str,
    checkpoint: Path,
    make_optimizers: Callable[[torch.nn.Module, Schedule], list[torch.optim.Optimizer]] = _optimizers,
    save_every: float = 60.0,
) -> Outcome:
    """Train `model` in place. Goes on from `checkpoint` where it exists, and keeps it up to date every
    `save_every` seconds; the caller removes it once the result is safe.
    """
    optimizers = make_optimizers(model, schedule)
    done, outcome = 0, Outcome()
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        done, outcome = saved["done"], Outcome(**saved["outcome"])
        torch.set_rng_state(saved["rng"])
        reporter.say("resumed", stage=stage, done=done, of=schedule.steps)
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    if done:
        peaks = [[schedule.matrix_rate], [schedule.rate]][-len(optimizers) :]
    model.train()
    body, shape = _compiled(model, schedule), None
    started, saved_at, before = time.monotonic(), time.monotonic(), outcome.seconds

    def keep(step: int) -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "done": step,
            "rng": torch.get_rng_state(),
            "outcome": {name: getattr(outcome, name) for name in outcome.__slots__},
        }
        write_atomically(checkpoint, lambda path: torch.save(state, path))

    with reporter.stage(stage, schedule.steps, done) as shown:
        for step in range(done, schedule.steps):
            batch = batches(step)
            shape = shape or batch.ids.shape
            loss = answer_loss(model, batch, body if batch.ids.shape == shape else None)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            for optimizer, rates in zip(optimizers, peaks, strict=True):
                for group, peak in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = peak * schedule.factor(step)
                optimizer.step()
                optimizer.zero_grad()
            value = loss.item()
            outcome.loss = value if outcome.loss != outcome.loss else 0.98 * outcome.loss + 0.02 * value
            outcome.steps = step + 1
            outcome.tokens += batch.ids.numel()
            outcome.answer_tokens += int(batch.counts.sum())
            outcome.seconds = before + time.monotonic() - started
            shown.step(step + 1, loss=outcome.loss)
            if time.monotonic() - saved_at > save_every:
                keep(step + 1)
                saved_at = time.monotonic()
    keep(schedule.steps)
    model.eval()
    return outcome
