"""Whether a graph uses all that a checkpoint holds. With a tensor left out, it would be another model."""

from __future__ import annotations

import re
from pathlib import Path

from adapters.files.weightfiles import HEAD
from server.engines.embedded.model.checkpoint import Checkpoint
from server.engines.embedded.model.config import ModelConfig, UnsupportedModelError
from server.engines.embedded.model.plan import GraphPlan

_NAMED = 3


def check_coverage(plan: GraphPlan, config: ModelConfig, model_dir: Path) -> None:
    """Raise `UnsupportedModelError` if the checkpoint holds tensors that the graph would leave out.

    Buffers that the architecture computes are left out rightly, and a head that is the embedding, bit by bit,
    if the config ties the two. transformers only warns of the rest, and unties a head that differs
    (`modeling_utils.tie_weights`).
    """
    read = {name for weight in plan.weights for name, _ in weight.sources}
    with Checkpoint(model_dir, plan.prefix) as checkpoint:
        computed = re.compile(config.family.computed)
        unread = sorted(name for name in checkpoint.names - read if not computed.fullmatch(name))
        if config.tied_head and HEAD in unread:
            if not checkpoint.equal(HEAD, plan.embedding):
                raise UnsupportedModelError(
                    f"{HEAD} differs from {plan.embedding}, and config.json says tie_word_embeddings: "
                    "set it to false if the head was trained apart"
                )
            unread.remove(HEAD)
    if unread:
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        kind = config.family.lora.title
        raise UnsupportedModelError(
            f"the checkpoint holds tensors that nothing in a {kind} base reads: {', '.join(unread[:_NAMED])}"
            f"{more}; without them the answers would not be the model's. Use a base of a supported "
            "architecture, or the engine vllm if it runs this one"
        )
