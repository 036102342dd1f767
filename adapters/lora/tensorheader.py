"""What the header of a safetensors file says of its tensors.

Format: https://github.com/huggingface/safetensors (8 bytes of header length, a JSON header, the data).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Its first byte, counted from the start of the file."""
    size: int
    """Bytes."""


def tensors(header: Mapping[str, Any], length: int) -> Iterator[Tensor]:
    """The tensors of a parsed `header` of `length` bytes, in its order. Its layout has to be checked."""
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        start, end = fields["data_offsets"]
        yield Tensor(name, fields["dtype"], tuple(fields["shape"]), 8 + length + start, end - start)
