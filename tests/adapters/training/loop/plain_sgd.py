"""Trains a tiny model with plain SGD, in this process or in several: `torchrun … -m …plain_sgd OUTPUT`.

SGD's parameters are linear in the gradients, so they are determined up to rounding. Adam's are not: a
gradient near zero moves a parameter by the whole learning rate, in a direction that rounding decides.
"""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from adapters.training.loop.feed import StepFeed, TrainingBatch
from adapters.training.loop.optimizers import OptimizerRates
from adapters.training.loop.progress import Reporter
from adapters.training.loop.schedule import Schedule
from adapters.training.loop.trainer import Setup, Trainer

STEPS, ROWS, LENGTH, VOCABULARY = 4, 4, 12, 64
WEIGHTS, LOSSES = "weights.safetensors", "losses.json"
CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=LENGTH,
    initializer_range=0.2,
)


def batch(step: int) -> TrainingBatch:
    """Rows of which ever fewer tokens count, so that a mean of the rows' means is another loss."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator)
    counts = torch.arange(LENGTH) < torch.tensor([[LENGTH], [8], [5], [2]])
    return TrainingBatch(ids, counts)


def plain_sgd(model: torch.nn.Module, schedule: Schedule) -> OptimizerRates:
    """SGD without momentum or decay."""
    return ((torch.optim.SGD(model.parameters(), lr=schedule.rate), schedule.rate),)


def fit(folder: Path, setup: Setup) -> tuple[dict[str, torch.Tensor], list[tuple[int, float]]]:
    """The weights, and the losses by step, after a run that keeps its checkpoints in `folder`."""
    torch.manual_seed(0)
    trainer = Trainer(
        LlamaForCausalLM(CONFIG),
        StepFeed(batch),
        Schedule(steps=STEPS, rate=0.5, warmup=0, clip=1e9),
        Reporter(StringIO()),
        stage="test",
        checkpoints=folder,
        setup=setup,
        make_optimizers=plain_sgd,
        held_out=batch(STEPS),
    )
    fitted = trainer.run()
    return trainer.weights, [*fitted.losses, *fitted.held_out]


def main(output: Path) -> None:
    """Write what the main process has."""
    weights, losses = fit(output / "checkpoints", Setup(precision="fp32", micro_rows=1))
    if torch.distributed.get_rank() == 0:
        save_file({name: value.contiguous() for name, value in weights.items()}, output / WEIGHTS)
        (output / LOSSES).write_text(json.dumps(losses), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
