"""What a graph variant writes in its own way: norms, activations, attention, the shape of activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from server.engines.embedded.model.config import Activation
from server.engines.embedded.model.operators.attention import Attention

SIGMOIDS: Mapping[Activation, float] = {"silu": 1.0, "quick_gelu": 1.702}
"""Activations that are x times the sigmoid of x, and what x is multiplied by there."""


class Operators(Protocol):
    """Writes one variant's own operators into one graph."""

    def mask_rows(self) -> list[str | int]:
        """Dimensions of an adapter mask before its rank columns."""
        ...

    def attention(self) -> Attention:
        """Declare what attention takes from the host; it comes before any layer."""
        ...

    def token_ids(self, ids: str) -> str:
        """The batch's token ids [B, S] in the variant's shape."""
        ...

    def positions(self) -> str:
        """Every token's position, in the shape of `token_ids`."""
        ...

    def flatten(self, x: str, width: int) -> str:
        """The variant's activations as [B x S, width]."""
        ...

    def unflatten(self, y: str) -> str:
        """The way back from `flatten`."""
        ...

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """(RMS norm of residual + update, residual + update); no update where it is empty."""
        ...

    def layer_norm(self, name: str, weight: str, bias: str, residual: str, update: str) -> tuple[str, str]:
        """The same with a LayerNorm."""
        ...

    def activate(self, kind: Activation, x: str) -> str:
        """An activation of `x`."""
        ...

    def add_product(self, y: str, a: str, b: str) -> str:
        """y + a b."""
        ...
