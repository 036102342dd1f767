"""Reads the tensors of a Hugging Face checkpoint (one safetensors file or several), some rows of a matrix at
a time.

`adapters.files.weightfiles` finds the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from adapters.files.weightfiles import named_in_full, weight_files

FLOATS = {"F32", "F16", "BF16"}
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix in the checkpoint.

    Its shape is given as [out, features], even if the file stores it transposed.
    """

    name: str
    out: int
    features: int
    transposed: bool = False
    """True if the file stores the matrix transposed, as [features, out]."""

    @property
    def source(self) -> tuple[str, tuple[int, ...]]:
        """Name and shape of the tensor in the file."""
        shape = (self.features, self.out) if self.transposed else (self.out, self.features)
        return self.name, shape


class CheckpointError(ValueError):
    """The checkpoint lacks a tensor, or holds it in another shape or type. The message names the tensor."""


class Checkpoint:
    """Reads the tensors of a checkpoint by name, as float32.

    The files are memory-mapped, so only the parts that are read take memory.
    """

    def __init__(self, model_dir: Path, prefix: str = "") -> None:
        """Open the checkpoint's files. If no tensor name begins with `prefix`, it is added to all names but
        the output head's.

        Names lack the prefix in checkpoints that were saved without the output head, such as the first
        GPT-2's. Raises `CheckpointError` or `adapters.errors.BaseModelError`.
        """
        self._files: dict[Path, Any] = {}
        stored = {name: file for file in weight_files(model_dir) for name in self._open(file).keys()}  # noqa: SIM118
        whole = named_in_full(stored, prefix)
        self._where = {whole[name]: (file, name) for name, file in stored.items()}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the checkpoint's files. The next read maps them again."""
        self._files.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._where

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors in the checkpoint."""
        return frozenset(self._where)

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise `CheckpointError` unless the checkpoint has a tensor `name` with this `shape` and a float
        type.
        """
        tensor = self._slice(name)
        found, kind = tuple(tensor.get_shape()), str(tensor.get_dtype())
        if found != shape:
            raise CheckpointError(
                f"the checkpoint's tensor {name} has shape {list(found)}, but config.json requires "
                f"{list(shape)}; use the config.json that belongs to the checkpoint"
            )
        if kind not in FLOATS:
            raise CheckpointError(
                f"the checkpoint's tensor {name} has type {kind}, which is not supported; supported: "
                f"{', '.join(sorted(FLOATS))}"
            )

    def read(self, name: str) -> NDArray[np.float32]:
        """Read the whole tensor `name` as float32."""
        return np.asarray(self._slice(name)[:], dtype=np.float32)

    def blocks(self, matrix: Matrix) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield a matrix as float32 in blocks of about 64 MiB: (index of the block's first row, rows [n,
        features]).
        """
        for start, stop in spans(matrix, BLOCK_BYTES):
            yield start, self.rows(matrix, start, stop)

    def rows(self, matrix: Matrix, start: int, stop: int) -> NDArray[np.float32]:
        """Read rows [start, stop) of a matrix [out, features] as float32. Thread-safe."""
        stored = self._slice(matrix.name)
        if matrix.transposed:
            return np.ascontiguousarray(np.asarray(stored[:, start:stop], dtype=np.float32).T)
        return np.asarray(stored[start:stop], dtype=np.float32)

    def equal(self, name: str, other: str) -> bool:
        """Return True if two tensors of the checkpoint hold the same numbers."""
        one, two = self._slice(name), self._slice(other)
        shape: list[int] = one.get_shape()
        if shape != two.get_shape():
            return False
        step = max(1, BLOCK_BYTES // max(1, 4 * math.prod(shape[1:])))
        parts = [(start, min(shape[0], start + step)) for start in range(0, shape[0], step)]
        return all(
            np.array_equal(np.asarray(one[a:b], np.float32), np.asarray(two[a:b], np.float32))
            for a, b in parts
        )

    def _slice(self, name: str) -> Any:
        try:
            file, stored = self._where[name]
        except KeyError:
            raise CheckpointError(
                f"the checkpoint has no tensor {name}, which its architecture needs; download the checkpoint "
                "again"
            ) from None
        return self._open(file).get_slice(stored)

    def _open(self, path: Path) -> Any:
        if path not in self._files:
            try:
                self._files[path] = safe_open(path, framework="numpy")
            except Exception as error:
                raise CheckpointError(
                    f"the checkpoint's file {path.name} cannot be read as safetensors: {error}; download it "
                    "again"
                ) from None
        return self._files[path]


def spans(matrix: Matrix, size: int) -> list[tuple[int, int]]:
    """Divide a matrix into row ranges [start, stop). Each takes about `size` bytes as float32."""
    step = max(1, size // (matrix.features * 4))
    return [(start, min(matrix.out, start + step)) for start in range(0, matrix.out, step)]
