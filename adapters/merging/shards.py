"""Copy one safetensors file of a base with an adapter's updates added, a block of rows at a time.

The new file has the same header, so every tensor keeps its name, type, shape and offset. Memory for a few
blocks of 16 MiB is enough, whatever the file's size. Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from adapters.errors import BaseModelError, format_value
from adapters.files.jsonfile import parse_object
from adapters.files.weightfiles import named_in_full
from adapters.lora.tensorheader import Tensor, tensors
from adapters.lora.weights import AdapterWeights, LowRank

Updates = Mapping[str, LowRank]
"""Maps the name of a tensor, such as `model.layers.0.self_attn.q_proj.weight`, to its LoRA update, in the
layout of the stored tensor.
"""
ShardProgress = Callable[[int], object]
"""Function that is called with the number of bytes processed since the last call."""

_BLOCK = 16 << 20
_MAX_HEADER = 64 << 20
_FLOATS: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file of a checkpoint, with a checked header."""

    path: Path
    header: bytes
    """The file's header: all bytes before the first tensor."""
    entries: tuple[Tensor, ...]
    """The file's tensors in the order of their bytes, without gaps between them."""

    @classmethod
    def read(cls, path: Path) -> Shard:
        """Read the header of `path`. Raises `BaseModelError` if it is not a complete safetensors file."""
        remedy = "Download or save the complete base again."
        try:
            with safe_open(path, framework="np"), path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                file.seek(0)
                header = file.read(8 + min(length, _MAX_HEADER))
        except OSError as problem:
            raise BaseModelError(path, f"the file cannot be read ({problem.strerror})", remedy) from problem
        except SafetensorError as problem:
            raise BaseModelError(
                path, f"the file is damaged ({format_value(str(problem))})", remedy
            ) from problem
        fields = parse_object(header[8:], path, BaseModelError)
        return cls(path, header, tuple(sorted(tensors(fields, length), key=lambda entry: entry.start)))

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class ShardComparison:
    """Result of comparing a merged weight file with the base's file."""

    merged: int
    """Number of tensors to which the adapter's update was added."""
    kept: int
    """Number of tensors without an update, which equal the base's byte for byte."""
    worst: float
    """Largest error of a merged weight, as a fraction of the largest error that rounding can cause; at most
    1.
    """


def stored_updates(weights: AdapterWeights, stored: Collection[str] = ()) -> Updates:
    """Map the base's tensor names to the adapter's updates, in the layout in which the base stores each
    tensor.

    `stored` are the tensor names in the base's files, which may lack the prefix of the full model's names.
    """
    family, found = weights.family, dict[str, LowRank]()
    names = {full: name for name, full in named_in_full(stored, family.prefix).items()}
    for (layer, name), update in weights.modules.items():
        full = f"{family.module_name(layer, name)}.weight"
        found[names.get(full, full)] = update.transposed if family.target(name).transposed else update
    return found


def check_targets(shards: Mapping[str, Tensor], updates: Updates, path: Path) -> None:
    """Raise `BaseModelError` if a tensor that `updates` changes is missing in the base, or has the wrong type
    or shape.
    """
    for name, update in updates.items():
        entry = shards.get(name)
        if entry is None:
            raise BaseModelError(
                path,
                f"the base lacks the tensor {name}, which the adapter updates",
                "The adapter does not fit: merge it into the base that it was made for.",
            )
        if entry.dtype not in _FLOATS:
            raise BaseModelError(
                path,
                f"the base's tensor {name} has the type {entry.dtype}; a merge needs {', '.join(_FLOATS)}",
                "Use the base as it was before it was quantized.",
            )
        wanted = (update.b.shape[0], update.a.shape[1])
        if entry.shape != wanted:
            raise BaseModelError(
                path,
                f"the base's tensor {name} has shape {list(entry.shape)}, but the adapter fits "
                f"{list(wanted)}",
                "The adapter does not fit: merge it into the base that it was made for.",
            )


def write_merged(source: Shard, target: Path, updates: Updates, progress: ShardProgress) -> None:
    """Write `source` to `target` with `updates` added, computed in float32 and rounded to each tensor's type.

    Raises `BaseModelError` if a merged weight is too large for its type, and `OSError`.
    """
    with source.path.open("rb") as read, target.open("wb") as write:
        write.write(source.header)
        for entry in source.entries:
            update = updates.get(entry.name)
            if update is None:
                for data in _chunks(read, entry):
                    write.write(data)
                    progress(len(data))
                continue
            for rows, values in _blocks(read, entry):
                sums = values.astype(np.float32)
                sums += np.float32(update.scaling) * (update.b[rows] @ update.a)
                with np.errstate(over="ignore"):
                    rounded = sums.astype(values.dtype)
                if not np.isfinite(rounded.astype(np.float32)).all():
                    raise BaseModelError(
                        source.path,
                        f"the tensor {entry.name} plus the update is more than {entry.dtype} can hold",
                        "Serve the base with the adapter instead of a merged model.",
                    )
                write.write(rounded.tobytes())
                progress(values.nbytes)


def check_merged(source: Shard, target: Path, updates: Updates, progress: ShardProgress) -> ShardComparison:
    """Read `target` again, and compare every byte and number with the expected ones.

    Sums are computed again in float64. Raises `BaseModelError` if a byte differs, or a number is further from
    the exact sum than rounding to its type and float32 arithmetic allow.
    """
    written = Shard.read(target)
    if written.header != source.header:
        raise _differs(target, "the header")
    merged, worst = 0, 0.0
    with source.path.open("rb") as before, target.open("rb") as after:
        for entry in source.entries:
            update = updates.get(entry.name)
            if update is not None:
                merged += 1
                worst = max(worst, _furthest(before, after, entry, update, progress))
                if worst > 1:
                    raise _differs(target, entry.name)
                continue
            for old, new in zip(_chunks(before, entry), _chunks(after, entry), strict=True):
                if old != new:
                    raise _differs(target, entry.name)
                progress(len(old))
    return ShardComparison(merged, len(source.entries) - merged, worst)


def _furthest(
    before: BinaryIO, after: BinaryIO, entry: Tensor, update: LowRank, progress: ShardProgress
) -> float:
    """Return the largest error of the merged tensor `entry`, as a fraction of the largest error that rounding
    can cause.
    """
    precision = ml_dtypes.finfo(_FLOATS[entry.dtype])
    least = float(precision.smallest_subnormal)
    worst = 0.0
    scaling = np.float64(update.scaling)
    a = update.a.astype(np.float64)
    columns = np.linalg.norm(a, axis=0)
    for (rows, old), (_, new) in zip(_blocks(before, entry), _blocks(after, entry), strict=True):
        b = update.b[rows].astype(np.float64)
        base = old.astype(np.float64)
        exact = base + scaling * (b @ a)
        # Float32 may lose 16 units of 2^-24 of the sum's terms, bounded by the Cauchy-Schwarz inequality.
        added = np.abs(base) + abs(scaling) * np.linalg.norm(b, axis=1)[:, None] * columns
        half_a_unit = np.ldexp(float(precision.eps) / 4, np.frexp(exact)[1])
        bound = half_a_unit + 2.0**-20 * added + least
        off = np.abs(new.astype(np.float64) - exact) / bound
        worst = max(worst, float(off.max()) if off.size else 0.0)
        progress(old.nbytes)
    return worst


def _differs(target: Path, what: str) -> BaseModelError:
    reason = f"{what} in the file differs from what was written: the disk or the memory is faulty"
    return BaseModelError(target, reason, "Merge again. If the error stays, use another disk.")


def _chunks(file: BinaryIO, entry: Tensor) -> Iterator[bytes]:
    file.seek(entry.start)
    for start in range(0, entry.size, _BLOCK):
        yield _exactly(file, min(_BLOCK, entry.size - start))


def _blocks(file: BinaryIO, entry: Tensor) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield blocks of the matrix `entry` in `file`, each as (slice of its rows, values)."""
    dtype, (rows, columns) = _FLOATS[entry.dtype], entry.shape
    step = max(1, _BLOCK // (columns * 8))
    for start in range(0, rows, step):
        end = min(rows, start + step)
        file.seek(entry.start + start * columns * dtype.itemsize)
        data = _exactly(file, (end - start) * columns * dtype.itemsize)
        yield slice(start, end), np.frombuffer(data, dtype).reshape(end - start, columns)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise BaseModelError(
            Path(file.name), "the weight file changed while it was read", "Merge the adapter again."
        )
    return data
