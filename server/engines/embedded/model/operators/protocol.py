"""The operators that each graph variant writes differently: norms, activations, attention, reshaping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.engines.embedded.model.config import Activation
from server.engines.embedded.model.operators.attention import Attention

SIGMOIDS: Mapping[Activation, float] = {"silu": 1.0, "quick_gelu": 1.702}
"""Maps activations of the form x * sigmoid(factor * x) to their factor."""


class Operators(Protocol):
    """Adds a variant's operators to a graph. Methods take and return names of tensors."""

    def mask_rows(self) -> list[str | int]:
        """Return the dimensions of an adapter mask that come before its rank columns."""
        ...

    def attention(self) -> Attention:
        """Declare the inputs that attention needs from the host. Call this before writing any layer."""
        ...

    def token_ids(self, ids: str) -> str:
        """Reshape the batch's token ids [B, S] as the variant needs them."""
        ...

    def positions(self) -> str:
        """Return every token's position, in the shape of `token_ids`."""
        ...

    def flatten(self, x: str, width: int) -> str:
        """Reshape activations of the variant's shape to [B x S, width]."""
        ...

    def unflatten(self, y: str) -> str:
        """Undo `flatten`: return to the variant's shape of activations."""
        ...

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update). An empty `update` is not added."""
        ...

    def layer_norm(self, name: str, weight: str, bias: str, residual: str, update: str) -> tuple[str, str]:
        """Like `rms_norm`, but with a LayerNorm."""
        ...

    def activate(self, kind: Activation, x: str) -> str:
        """Apply the activation `kind` to `x`."""
        ...

    def add_product(self, y: str, a: str, b: str) -> str:
        """Compute y + a @ b, where `@` is the matrix product."""
        ...
