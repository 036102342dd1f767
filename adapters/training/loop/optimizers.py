"""The optimizers for training, each with its peak learning rate.

Muon (Jordan et al. 2024, as `torch.optim.Muon`) trains matrices; AdamW trains embeddings and norms, or all
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from adapters.training.loop.schedule import Schedule

OptimizerRates = Sequence[tuple[torch.optim.Optimizer, float]]
"""A list of optimizers, each with its peak learning rate."""
MakeOptimizers = Callable[[torch.nn.Module, Schedule], OptimizerRates]


def muon(model: torch.nn.Module, schedule: Schedule) -> OptimizerRates:
    """Return Muon for the matrices inside the layers, and AdamW for the other weights, such as embeddings and
    norms.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    matrices = [
        value for name, value in named if value.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    ids = {id(value) for value in matrices}
    rest = [value for _, value in named if id(value) not in ids]
    first = torch.optim.Muon(
        matrices, lr=schedule.matrix_rate, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    second = torch.optim.AdamW(rest, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
    return (first, schedule.matrix_rate), (second, schedule.rate)


def adamw(model: torch.nn.Module, schedule: Schedule) -> OptimizerRates:
    """Return AdamW for all weights. Only matrices get weight decay."""
    trained = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [value for value in trained if value.ndim < 2], "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return ((torch.optim.AdamW(kept, lr=schedule.rate, betas=(0.9, 0.95)), schedule.rate),)


def lora(model: torch.nn.Module, schedule: Schedule) -> OptimizerRates:
    """Return AdamW for the trainable weights of a LoRA."""
    trained = [value for value in model.parameters() if value.requires_grad]
    return ((torch.optim.AdamW(trained, lr=schedule.rate, weight_decay=0.01), schedule.rate),)
