"""The tensors in the header of a safetensors file.

Format: https://github.com/huggingface/safetensors (8 bytes of header length, a JSON header, the data).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor in the header of a safetensors file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Position of the tensor's first byte in the file."""
    size: int
    """Length of the tensor's data in bytes."""


def tensors(header: Mapping[str, Any], length: int) -> Iterator[Tensor]:
    """Return the tensors in the header of a safetensors file, in the header's order. `length` is the header's
    size in bytes. Check the file's layout first.
    """
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        start, end = fields["data_offsets"]
        yield Tensor(name, fields["dtype"], tuple(fields["shape"]), 8 + length + start, end - start)
