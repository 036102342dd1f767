"""The safetensors file of a PEFT LoRA: its header, checked and bounded, and one tensor's bytes at a time.

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

_EMBEDDINGS = "the tensor changes the base's embeddings, which all adapters share"
_HEAD = "the tensor changes the base's output head, which all adapters share"
_RESIZED = (
    "the tensor replaces the base's, which all adapters share; PEFT saves it if the vocabulary was resized"
)
_UNRESIZED = (
    "Save the adapter with save_pretrained(..., save_embedding_layers=False), or train without new tokens."
)
_TRACES = (
    ("lora_magnitude_vector", "OneSeek does not serve DoRA", "Train the adapter with use_dora=False."),
    ("lora_embedding", _EMBEDDINGS, "Train the adapter without embed_tokens."),
    ("token_adapter", _EMBEDDINGS, "Train the adapter without added tokens."),
    ("embed_tokens.lora_", _EMBEDDINGS, "Train the adapter without embed_tokens."),
    (
        "lm_head.lora_",
        _HEAD,
        "Train the adapter without lm_head.",
    ),
    *((f"{name}.weight", _RESIZED, _UNRESIZED) for name in ("embed_tokens", "lm_head", "wte")),
    (".bias", "OneSeek does not serve biases", "Train the adapter with bias='none' and lora_bias=False."),
    (
        "modules_to_save",
        "the tensor replaces a module of the base",
        "Train the adapter without modules_to_save.",
    ),
)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """An open safetensors file with a checked layout."""

    path: Path
    tensors: tuple[Tensor, ...]
    file: BinaryIO

    @classmethod
    @contextmanager
    def open(cls, folder: Path, limit: int) -> Generator[TensorFile]:
        """Open the weights in `folder`, with at most `limit` bytes beside the header.

        Raises `AdapterError` if there are none, or only a pickle, or the file is too large or damaged.
        """
        path = weights_path(folder)
        try:
            with open_regular(path) as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                if size > limit + MAX_HEADER_BYTES:
                    raise AdapterError(
                        path,
                        f"the file has {size} bytes; an adapter may have at most {limit} on this server",
                        "Check that the file is an adapter, and that its rank is within the limit.",
                    )
                yield cls(path, _header(path, file, size), file)
        except OSError as problem:
            raise AdapterError(
                path,
                f"the weight file cannot be read ({problem.strerror})",
                "Check the permissions of the file.",
            ) from problem

    def read(self, tensor: Tensor) -> bytes:
        """Return the bytes of one tensor, little-endian, row by row. Raises `AdapterError` if the file was
        truncated.
        """
        self.file.seek(tensor.start)
        data = self.file.read(tensor.size)
        if len(data) != tensor.size:
            raise AdapterError(
                self.path, "the weight file changed while it was read", "Load the adapter again."
            )
        return data


def weights_path(folder: Path) -> Path:
    """Return the safetensors file in `folder`. Raises `AdapterError` if there is none, or only a pickle."""
    path = folder / WEIGHTS_FILE
    if path.is_file():
        return path
    refuse_pickle(folder)
    raise AdapterError(
        path,
        "the weight file is not a regular file"
        if os.path.lexists(path)
        else "the weight file does not exist",
        "Save the adapter with PEFT's save_pretrained.",
    )


def halves(file: TensorFile, family: LoraFamily) -> dict[Key, tuple[Tensor, Tensor]]:
    """Return the A and the B of every module. Raises `AdapterError` if the file holds any other tensor, or
    only one of the two.
    """
    found: dict[tuple[Key, Half], Tensor] = {}
    for tensor in file.tensors:
        half = family.factor(tensor.name)
        if half is None:
            raise unknown_tensor(file.path, tensor.name, family)
        if half in found:
            raise AdapterError(
                file.path,
                f"the tensors {tensor.name} and {found[half].name} are the same LoRA factor",
                "Save each adapter in a folder of its own.",
            )
        found[half] = tensor
    if not found:
        raise AdapterError(file.path, "the weight file does not hold any tensor", "Save the adapter again.")
    for key, letter in found:
        other: Half = "B" if letter == "A" else "A"
        if (key, other) not in found:
            raise AdapterError(
                file.path,
                f"the module {key[1]} of layer {key[0]} has lora_{letter} but no lora_{other}",
                "Save the adapter again.",
            )
    return {key: (found[key, "A"], found[key, "B"]) for key, _ in found}


def unknown_tensor(path: Path, name: str, family: LoraFamily) -> AdapterError:
    """Explain why an adapter at `path` may not hold the tensor `name`, which is not a factor of its
    family.
    """
    for trace, reason, remedy in _TRACES:
        if trace in name:
            return AdapterError(path, f"the tensor {format_value(name)} is not supported: {reason}", remedy)
    return AdapterError(
        path,
        f"the tensor {format_value(name)} is not a LoRA factor of a target module in a {family.title} base",
        f"Save the adapter with PEFT's save_pretrained, trained only on {', '.join(family.names)}.",
    )


def _header(path: Path, file: BinaryIO, size: int) -> tuple[Tensor, ...]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise AdapterError(
            path,
            "the weight file is damaged: its safetensors header does not match its data",
            "Save or download the file again.",
        )
    header = parse_object(file.read(length), path, AdapterError)
    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as problem:
        raise AdapterError(
            path,
            f"the weight file is damaged ({format_value(str(problem))})",
            "Save or download the file again.",
        ) from problem
    return tuple(tensors(header, length))
