"""The operators that the fused and portable graph variants write differently: norms, activations, attention,
reshaping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.engines.embedded.model.config import Activation
from server.engines.embedded.model.operators.attention import Attention

SIGMOIDS: Mapping[Activation, float] = {"silu": 1.0, "quick_gelu": 1.702}
"""Maps each activation function of the form x * sigmoid(factor * x) to its factor."""


class Operators(Protocol):
    """Adds the operators of one graph variant to a graph. Methods take and return names of tensors."""

    def mask_rows(self) -> list[str | int]:
        """Return the leading dimensions of the graph input `lora_mask`, before its LoRA rank columns: one
        mask per batch slot or per token.
        """
        ...

    def attention(self) -> Attention:
        """Declare the graph inputs that attention needs. Call this once, before any layer is written."""
        ...

    def token_ids(self, ids: str) -> str:
        """Reshape the batch's token ids [batch, tokens] to the shape that the graph variant uses."""
        ...

    def positions(self) -> str:
        """Return the position of every token, in the same shape as `token_ids`."""
        ...

    def flatten(self, x: str, width: int) -> str:
        """Reshape activations from the graph variant's shape to [batch x tokens, width]."""
        ...

    def unflatten(self, y: str) -> str:
        """Reshape the result of `flatten` back to the graph variant's shape of activations."""
        ...

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update).

        If `update` is empty, nothing is added.
        """
        ...

    def layer_norm(self, name: str, weight: str, bias: str, residual: str, update: str) -> tuple[str, str]:
        """Normalise residual + update with a LayerNorm.

        Return the norm and the sum; an empty `update` is not added.
        """
        ...

    def activate(self, kind: Activation, x: str) -> str:
        """Apply the activation function `kind` to `x`."""
        ...

    def add_product(self, y: str, a: str, b: str) -> str:
        """Return y + a @ b, where `@` is the matrix product.

        It adds the LoRA update to a linear module's output.
        """
        ...
