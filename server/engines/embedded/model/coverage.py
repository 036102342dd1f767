"""Checks that a graph uses every tensor of a checkpoint: leaving out a tensor would change the answers."""

from __future__ import annotations

import re
from pathlib import Path

from adapters.files.weightfiles import HEAD
from server.engines.embedded.model.checkpoint import Checkpoint
from server.engines.embedded.model.config import ModelConfig, UnsupportedModelError
from server.engines.embedded.model.plan import GraphPlan

_NAMED = 3


def check_coverage(plan: GraphPlan, config: ModelConfig, model_dir: Path) -> None:
    """Raise `UnsupportedModelError` if the checkpoint has tensors that the graph does not use.

    Two kinds of tensors may be unused: buffers that the decoder computes itself, and an output head that
    equals the embedding bit by bit if the config ties head and embedding. transformers only warns of other
    unused tensors, and it unties a head that differs (`modeling_utils.tie_weights`).
    """
    read = {name for weight in plan.weights for name, _ in weight.sources}
    with Checkpoint(model_dir, plan.prefix) as checkpoint:
        computed = re.compile(config.family.computed)
        unread = sorted(name for name in checkpoint.names - read if not computed.fullmatch(name))
        if config.tied_head and HEAD in unread:
            if not checkpoint.equal(HEAD, plan.embedding):
                raise UnsupportedModelError(
                    f"the checkpoint's tensor {HEAD} differs from {plan.embedding}, but config.json sets "
                    "tie_word_embeddings; set this field to false if the two tensors were trained separately"
                )
            unread.remove(HEAD)
    if unread:
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        kind = config.family.lora.title
        raise UnsupportedModelError(
            f"the checkpoint has tensors that a {kind} model does not use: "
            f"{', '.join(unread[:_NAMED])}{more}; without these tensors, the answers would differ from the "
            "model's. Use a base model of a supported architecture, or the vllm engine if it supports this "
            "base model"
        )
