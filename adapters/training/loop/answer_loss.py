"""A model and its loss as a single torch module. A wrapper such as FSDP then gathers the weights for both at
once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

Body = Callable[..., BaseModelOutputWithPast]


class AnswerLoss(torch.nn.Module):
    """A model with its loss: the mean cross entropy over the tokens that count for the loss. Logits are
    computed only for the positions that predict these tokens.
    """

    def __init__(self, model: PreTrainedModel, precision: Literal["bf16", "fp32"]) -> None:
        super().__init__()
        self.model = model
        self._bf16 = precision == "bf16"
        self._compiled: Body | None = None
        self._shape: torch.Size | None = None

    def compile_for(self, shape: torch.Size) -> None:
        """Compile the model's decoder for batches of `shape`, if the compiler g++ is installed. Batches of
        other shapes run uncompiled.
        """
        if shutil.which("g++") is not None:
            self._compiled, self._shape = torch.compile(self.model.get_decoder(), dynamic=False), shape

    def forward(
        self, ids: torch.Tensor, counts: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss of a batch, a float32 scalar. `counts` is True for each token that counts for the
        loss.
        """
        body: Body = self.model.get_decoder()
        if self._compiled is not None and ids.shape == self._shape:
            body = self._compiled
        head = self.model.get_output_embeddings()
        assert isinstance(head, torch.nn.Linear)
        more = {} if positions is None else {"position_ids": positions[:, :-1]}
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._bf16):
            hidden: torch.Tensor = body(input_ids=ids[:, :-1], use_cache=False, **more).last_hidden_state  # pyright: ignore[reportAssignmentType]
            if not counts[:, 1:].any():
                return hidden.float().sum() * 0.0
            logits = F.linear(hidden[counts[:, 1:]], head.weight)
        return F.cross_entropy(logits.float(), ids[:, 1:][counts[:, 1:]])
