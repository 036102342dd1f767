"""Read the safetensors file of a PEFT LoRA: the header, checked and of limited size, and the bytes of single
tensors.

The safetensors library checks the layout; `adapters.lora.weights` interprets the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open

from adapters.errors import AdapterError, format_value
from adapters.files.jsonfile import parse_object
from adapters.files.regular import open_regular
from adapters.lora.families import Half, Key, LoraFamily
from adapters.lora.tensorheader import Tensor, tensors
from adapters.pickles import refuse_pickle

WEIGHTS_FILE = "adapter_model.safetensors"
MAX_HEADER_BYTES = 8 << 20

_EMBEDDINGS = "it changes the base's embeddings, which all adapters share"
_HEAD = "it changes the base's output head, which all adapters share"
_RESIZED = "it replaces the base's own, which all adapters share; PEFT saves it if the vocabulary was resized"
_UNRESIZED = "Save it with save_pretrained(..., save_embedding_layers=False), or train it without new tokens."
_TRACES = (
    ("lora_magnitude_vector", "DoRA is not served", "Train it with use_dora=False."),
    ("lora_embedding", _EMBEDDINGS, "Train it without embed_tokens."),
    ("token_adapter", _EMBEDDINGS, "Train it without added tokens."),
    ("embed_tokens.lora_", _EMBEDDINGS, "Train it without embed_tokens."),
    (
        "lm_head.lora_",
        "it changes the base's output head, which all adapters share",
        "Train it without lm_head.",
    ),
    *((f"{name}.weight", _RESIZED, _UNRESIZED) for name in ("embed_tokens", "lm_head", "wte")),
    (".bias", "biases are not served", "Train it with bias='none' and lora_bias=False."),
    ("modules_to_save", "it replaces whole modules of the base", "Train it without modules_to_save."),
)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open safetensors file whose layout was checked."""

    path: Path
    tensors: tuple[Tensor, ...]
    file: BinaryIO

    @classmethod
    @contextmanager
    def open(cls, folder: Path, limit: int) -> Generator[TensorFile]:
        """Open the safetensors file in `folder`. It may have at most `limit` bytes besides the header.

        Raises `AdapterError` if the file is missing, only a pickle, too large, or damaged.
        """
        path = weights_path(folder)
        try:
            with open_regular(path) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                if size > limit + MAX_HEADER_BYTES:
                    reason = f"the weights have {size} bytes, but an adapter may have at most {limit} here"
                    raise AdapterError(
                        path, reason, "Check that the file holds an adapter, with a rank within the limit."
                    )
                yield cls(path, _header(path, file, size), file)
        except OSError as problem:
            reason = f"the weights cannot be read ({problem.strerror})"
            raise AdapterError(path, reason, "Check the file's permissions.") from problem

    def read(self, tensor: Tensor) -> bytes:
        """Return the bytes of one tensor, little-endian, in row-major order. Raises `AdapterError` if the
        file was truncated.
        """
        self.file.seek(tensor.start)
        data = self.file.read(tensor.size)
        if len(data) != tensor.size:
            raise AdapterError(self.path, "the file changed while it was read", "Load the adapter again.")
        return data


def weights_path(folder: Path) -> Path:
    """Return the path of the safetensors file in `folder`. Raises `AdapterError` if there is none, or only a
    pickle.
    """
    path = folder / WEIGHTS_FILE
    if path.is_file():
        return path
    refuse_pickle(folder)
    reason = "is not a regular file" if os.path.lexists(path) else "does not exist"
    raise AdapterError(path, reason, "Save the adapter with PEFT's save_pretrained.")


def halves(file: TensorFile, family: LoraFamily) -> dict[Key, tuple[Tensor, Tensor]]:
    """Return the matrices A and B of every module. Raises `AdapterError` if the file holds any other tensor,
    or only A or only B of a module.
    """
    found: dict[tuple[Key, Half], Tensor] = {}
    for tensor in file.tensors:
        half = family.factor(tensor.name)
        if half is None:
            raise unknown_tensor(file.path, tensor.name, family)
        if half in found:
            reason = f"the tensors {tensor.name} and {found[half].name} are the same factor of one module"
            raise AdapterError(file.path, reason, "Save one adapter in each folder.")
        found[half] = tensor
    if not found:
        raise AdapterError(file.path, "the weights file does not hold any tensor", "Save the adapter again.")
    for key, letter in found:
        other: Half = "B" if letter == "A" else "A"
        if (key, other) not in found:
            reason = f"layer {key[0]}'s {key[1]} has lora_{letter} but no lora_{other}"
            raise AdapterError(file.path, reason, "Save the adapter again.")
    return {key: (found[key, "A"], found[key, "B"]) for key, _ in found}


def unknown_tensor(path: Path, name: str, family: LoraFamily) -> AdapterError:
    """Return an error that explains why the adapter at `path` cannot be served with the tensor `name`, which
    belongs to no target module.
    """
    for trace, reason, remedy in _TRACES:
        if trace in name:
            return AdapterError(path, f"tensor {format_value(name)}: {reason}", remedy)
    if family.renamed(name) is not None:
        reason = f"tensor {format_value(name)} is not named as PEFT names it"
        remedy = f"Convert the adapter to PEFT's names: oneseek adapters import {path}"
        return AdapterError(path, reason, remedy)
    reason = f"is not a LoRA factor of a target module in a base such as {family.title}"
    return AdapterError(
        path,
        f"tensor {format_value(name)} {reason}",
        f"Train the adapter only on {', '.join(family.names)}, and save it with PEFT's save_pretrained.",
    )


def _header(path: Path, file: BinaryIO, size: int) -> tuple[Tensor, ...]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise AdapterError(
            path,
            "the file is damaged: its safetensors header does not match its data",
            "Save or download the adapter again.",
        )
    header = parse_object(file.read(length), path, AdapterError)
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as problem:
        reason = f"the file is damaged ({format_value(str(problem))})"
        raise AdapterError(path, reason, "Save or download the adapter again.") from problem
    return tuple(tensors(header, length))
