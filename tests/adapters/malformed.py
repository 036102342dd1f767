"""Malformed adapters, each a small change of a good one. None of them may be served, or leave anything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "oneseek.json"
Tensors = dict[str, NDArray[Any]]
EVERY = frozenset({"load", "add", "found"})
"""Doors: in memory over HTTP, into the registry, and discovery or the settings."""
KEPT = EVERY - {"load"}
"""Doors that read names from the files; a load is given its own."""


@dataclass(frozen=True)
class Malformed:
    """One of them."""

    name: str
    make: Callable[[Path], object]
    """Changes a copy of a good adapter."""
    doors: frozenset[str] = EVERY

    def write(self, good: Path, folder: Path) -> Path:
        shutil.copytree(good, folder)
        self.make(folder)
        return folder


def field(name: str, value: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), name: value}), "utf-8")

    return change


def without(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        fields = json.loads(path.read_text("utf-8"))
        del fields[name]
        path.write_text(json.dumps(fields), "utf-8")

    return change


def raw(file: str, data: bytes | str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)


def noted(value: object) -> Callable[[Path], object]:
    return raw(MANIFEST, json.dumps(value))


def tensors(change: Callable[[Tensors], Tensors]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        found = change(load_file(folder / WEIGHTS))
        save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, folder / WEIGHTS)

    return rewrite


def each(change: Callable[[NDArray[Any]], NDArray[Any]], part: str = "lora_") -> Callable[[Path], object]:
    return tensors(lambda found: {n: change(a) if part in n else a for n, a in found.items()})


def first(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Path], object]:
    return tensors(lambda found: {n: change(a) if n == min(found) else a for n, a in found.items()})


def one_number(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array = array.copy()
        array.flat[array.size // 2] = value
        return array

    return change


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Rewrite the header of the weights, its length with it."""

    def rewrite(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        fields = json.loads(data[8 : 8 + length])
        changed = change(fields)
        text = changed if isinstance(changed, bytes) else json.dumps(changed or fields).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return rewrite


def entry(name: str, value: object) -> Callable[[Path], object]:
    def change(fields: dict[str, Any]) -> None:
        fields[min(key for key in fields if key != "__metadata__")][name] = value

    return header(change)


def instead(file: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        make(folder / file)

    return change


def bind(path: Path) -> None:
    """A socket's name is short, so it is made where it stands."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(size: int) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def huge_layout(folder: Path) -> None:
    """A header of a valid layout that claims gigabytes, over a sparse file that has them."""
    with (folder / WEIGHTS).open("wb") as file:
        size = 6 << 30
        text = json.dumps(
            {
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {
                    "dtype": "F32", "shape": [size // 4 // 64, 64], "data_offsets": [0, size],
                }
            }
        ).encode()  # fmt: skip
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)


SPECIAL: Mapping[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "socket": bind,
    "loop": lambda path: path.symlink_to(path),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "outside": lambda path: path.symlink_to("/etc/passwd"),
}
VALUES: Mapping[str, tuple[object, ...]] = {
    "r": (0, -1, 1.5, "4", None, True, 1 << 17, 257, [], {}, 8),
    "lora_alpha": (0, "x", None, True, 1e7, -1e7, [], {}, 10**400),
    "target_modules": (
        [], "", None, 5, [""], ["q_proj", 5], ["../x"], ["nope"], "(.*)*", ".*" * 10, "a" * 600, ["x"] * 5000,
        {}, ["q_proj"], ["q_proj", "v_proj", "k_proj"], True, "(q_proj|v_proj", ["q_proj\n"],
    ),
    "rank_pattern": ([4], "x", {"q_proj": 0}, {"q_proj": "a"}, {"(a+)+": 4}, {"q_proj": 3}, {"": 1}),
    "alpha_pattern": ([4], "x", {"q_proj": "a"}, {"(a|a)*": 4}, {"q_proj": None}),
    "layers_to_transform": (["a"], [-1], [99], {}, "x", [1.5], [0], list(range(5000))),
    "exclude_modules": (["q_proj"], 5, "(.*)*", ".*"),
    "use_rslora": ("yes", 2),
    "fan_in_fan_out": (True, "yes"),
    "use_dora": (True, "yes"),
    "lora_bias": (True,),
    "bias": ("all", "lora_only", 5),
    "modules_to_save": (["lm_head"],),
    "peft_type": ("LOHA", "", 5, ["LORA"]),
    "auto_map": ({"AutoModel": "x.Y"},),
    "trust_remote_code": (True,),
    "layer_replication": ([[0, 1]],),
    "trainable_token_indices": ([1],),
    "target_parameters": (["x"],),
    "a_field_of_tomorrow": (True, {"on": 1}),
    "base_model_name_or_path": ("meta-llama/Llama-2-7b-hf", "Qwen/Qwen2-7B"),
}  # fmt: skip
BROKEN_JSON: Mapping[str, bytes | str] = {
    "empty": "",
    "open": "{",
    "list": "[]",
    "null-value": "null",
    "number": "5",
    "nested": '{"r":' + "[" * 100_000,
    "nested-closed": '{"r":' + "[" * 50_000 + "]" * 50_000 + "}",
    "twice": '{"r": 4, "r": 5}',
    "latin": b'{"r": "\xe5"}',
    "utf16": '{"r": 4}'.encode("utf-16"),
    "nul": b"\0" * 100,
    "large": '{"r": "' + "x" * (2 << 20) + '"}',
    "nan": '{"r": NaN}',
    "infinity": '{"lora_alpha": Infinity}',
    "too-large-number": '{"lora_alpha": 1e999}',
    "long-integer": '{"lora_alpha": ' + "9" * 5000 + "}",
    "more-after": '{"r": 4} {}',
    "half-character": '{"base_model_name_or_path": "\\ud800"}',
}
NOTES: Mapping[str, object] = {
    "unknown-field": {"colour": "red"},
    "digest-other": {"digest": "sha256:" + "1" * 64},
    "digest-none": {"digest": "abc"},
    "digest-number": {"digest": 5},
    "base-other": {"base_digest": "sha256:" + "1" * 64},
    "base-none": {"base_digest": "mistral"},
}
NAMES: Mapping[str, object] = {
    **{
        f"alias-{n}": {"alias": a}
        for n, a in enumerate(("..", "a/b", "a\\b", "", "con", "x" * 200, "base", 5))
    },
    **{
        f"alias-odd-{n}": {"alias": a}
        for n, a in enumerate(("/etc", "a b", "å", "auto", "base", "x.", "a\nb"))
    },
    **{f"version-{n}": {"version": v} for n, v in enumerate(("latest", "v", 1, "v1/../../x", "v1 ", "1.0"))},
    **{f"language-{n}": {"language": v} for n, v in enumerate(("swedish!", 5, "s", "../.."))},
}
GROWING: Mapping[str, object] = {
    "about-grows": {"about": [0] * 300_000},
    "about-nested-grows": {"about": {str(n): [n] for n in range(60_000)}},
    "metrics-many": {"metrics": {f"m{n}": n for n in range(60_000)}},
    "parents-many": {"parents": ["sha256:" + f"{n:064x}" for n in range(13_500)]},
}
BLOCKS: Mapping[str, bytes] = {
    "empty": b"",
    "one-byte": b"x",
    "header-length": struct.pack("<Q", 1 << 60),
    "header-past-the-end": struct.pack("<Q", 5000) + b"{}",
    "header-not-json": struct.pack("<Q", 4) + b"abcd",
    "header-list": struct.pack("<Q", 2) + b"[]",
    "header-empty": struct.pack("<Q", 2) + b"{}",
    "header-nested": struct.pack("<Q", 100_005) + b'{"a":' + b"[" * 100_000,
    "header-twice": struct.pack("<Q", 15) + b'{"a":{},"a":{}}',
    "header-huge": struct.pack("<Q", 9 << 20) + b"{" + b" " * ((9 << 20) - 2) + b"}",
    "page": b"<!DOCTYPE html><html>Not found</html>" * 20,
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94." * 10,
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
}


def renamed(change: Callable[[str], str]) -> Callable[[Path], object]:
    return tensors(
        lambda found: {change(name) if name == min(found) else name: a for name, a in found.items()}
    )


def added(name: str) -> Callable[[Path], object]:
    return tensors(lambda found: {**found, name: np.ones((4, 4), np.float32)})


STEM = "base_model.model.model.layers.{}.self_attn.{}.{}.weight"
NUMBERS: Mapping[str, Callable[[Path], object]] = {
    **{f"one-{value}": first(one_number(value)) for value in (np.nan, np.inf, -np.inf)},
    "all-nan": each(lambda array: array * np.nan),
    **{f"times-{factor:g}": each(lambda a, f=factor: a * np.float32(f)) for factor in (1e30, 1e20, 1e8)},
    "a-times-1e30": each(lambda array: array * np.float32(1e30), "lora_A"),
    "b-times-1e30": each(lambda array: array * np.float32(1e30), "lora_B"),
    "one-1e30": first(one_number(1e30)),
    **{f"times-{factor:g}": each(lambda a, f=factor: a * np.float32(f)) for factor in (1e-6, 1e-15, 1e-30)},
    "b-times-1e-30": each(lambda array: array * np.float32(1e-30), "lora_B"),
    "denormal": each(lambda array: np.full_like(array, 1e-44)),
    "zero": each(np.zeros_like),
    "a-zero": each(np.zeros_like, "lora_A"),
    "b-zero": each(np.zeros_like, "lora_B"),
    "transposed": first(lambda array: array.T),
    "all-transposed": each(lambda array: array.T),
    "flat": first(lambda array: array.reshape(-1)),
    "deep": first(lambda array: array[None]),
    "no-rows": first(lambda array: array[:0]),
    "a-row-less": first(lambda array: array[:-1]),
    "a-column-more": first(lambda array: np.concatenate([array, array[:, :1]], 1)),
    "rank-of-one-other": first(lambda array: np.concatenate([array, array], 0)),
    **{f"type-{kind}": first(lambda a, k=kind: a.astype(k)) for kind in ("f8", "i8", "i4", "i1", "u1", "?")},
    "one-missing": tensors(lambda found: {n: a for n, a in found.items() if n != min(found)}),
    "a-missing": tensors(lambda found: {n: a for n, a in found.items() if "lora_A" not in n}),
    "a-layer-missing": tensors(lambda found: {n: a for n, a in found.items() if "layers.0." not in n}),
    "nothing": tensors(lambda _: {}),
    "name-up": renamed(lambda name: f"../{name}"),
    "name-absolute": renamed(lambda name: f"/etc/{name}"),
    "name-long": renamed(lambda name: name + "x" * 10_000),
    "name-empty": renamed(lambda _: ""),
    "name-control": renamed(lambda name: f"\x1b[2J{name}"),
    "layer-99": renamed(lambda name: name.replace("layers.0", "layers.99")),
    "layer-minus": renamed(lambda name: name.replace("layers.0", "layers.-1")),
    "layer-long": renamed(lambda name: name.replace("layers.0", "layers.00000000000000000000")),
    "module-unknown": added(STEM.format(0, "z_proj", "lora_A")),
    "module-unnamed": tensors(
        lambda found: {
            **found,
            STEM.format(0, "o_proj", "lora_A"): np.ones((4, 64), np.float32),
            STEM.format(0, "o_proj", "lora_B"): np.ones((64, 4), np.float32),
        }
    ),
    "dora": added("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"),
    "bias": added("base_model.model.model.layers.0.self_attn.q_proj.bias"),
    "embedding": added("base_model.model.model.embed_tokens.lora_embedding_A"),
    "head": added("base_model.model.lm_head.weight"),
    "saved-module": added("base_model.model.modules_to_save.lm_head.weight"),
    "same-factor-twice": tensors(
        lambda found: {**found, min(found).replace(".weight", ".default.weight"): found[min(found)]}
    ),
}
HEADERS: Mapping[str, Callable[[Path], object]] = {
    "offsets-overlap": entry("data_offsets", [0, 8]),
    "offsets-negative": entry("data_offsets", [-8, 8]),
    "offsets-reversed": entry("data_offsets", [1024, 0]),
    "offsets-past-the-end": entry("data_offsets", [0, 1 << 50]),
    "offsets-text": entry("data_offsets", "x"),
    "offsets-one": entry("data_offsets", [0]),
    "shape-negative": entry("shape", [-4, -64]),
    "shape-huge": entry("shape", [1 << 40, 1 << 40]),
    "shape-text": entry("shape", "4x64"),
    "shape-fraction": entry("shape", [4.0, 64]),
    "dtype-unknown": entry("dtype", "F1024"),
    "dtype-number": entry("dtype", 5),
    "dtype-smaller": entry("dtype", "F16"),
    "metadata-list": header(lambda fields: {**fields, "__metadata__": [1]}),
    "entry-list": header(lambda fields: {**fields, "x": [1]}),
    "entry-null": header(lambda fields: {**fields, "x": None}),
    "half-character": header(lambda fields: json.dumps({**fields, "\ud800": {}}).encode()),
}


def corpus() -> Iterator[Malformed]:
    """Every malformed adapter."""
    for name, values in VALUES.items():
        for number, value in enumerate(values):
            yield Malformed(f"config-{name}-{number}", field(name, value))
    for name in ("peft_type", "target_modules"):
        yield Malformed(f"config-without-{name}", without(name))
    for file in (CONFIG, MANIFEST):
        for name, data in BROKEN_JSON.items():
            yield Malformed(f"{file}-{name}", raw(file, data))
        for name, make in SPECIAL.items():
            yield Malformed(f"{file}-{name}", instead(file, make))
    for name, make in SPECIAL.items():
        yield Malformed(f"weights-{name}", instead(WEIGHTS, make))
    for name, data in BLOCKS.items():
        yield Malformed(f"weights-bytes-{name}", raw(WEIGHTS, data))
    for name, make in NUMBERS.items():
        yield Malformed(f"tensors-{name}", make)
    for name, make in HEADERS.items():
        yield Malformed(f"header-{name}", make)
    for name, value in NOTES.items():
        yield Malformed(f"manifest-{name}", noted(value))
    for name, value in NAMES.items():
        yield Malformed(f"manifest-{name}", noted(value), KEPT)
    for name, value in GROWING.items():
        yield Malformed(f"manifest-{name}", noted(value), frozenset({"add"}))
    for size in (100, 1000, 5000):
        yield Malformed(f"weights-cut-{size}", lambda folder, s=size: os.truncate(folder / WEIGHTS, s))
    yield Malformed("weights-missing", lambda folder: (folder / WEIGHTS).unlink())
    yield Malformed("config-missing", lambda folder: (folder / CONFIG).unlink())
    yield Malformed("only-a-pickle", lambda folder: (folder / WEIGHTS).rename(folder / "adapter_model.bin"))
    yield Malformed("folder-empty", lambda folder: [path.unlink() for path in folder.iterdir()])
    yield Malformed("config-sparse", instead(CONFIG, sparse(8 << 30)))
    yield Malformed("manifest-sparse", instead(MANIFEST, sparse(8 << 30)))
    yield Malformed("weights-sparse", instead(WEIGHTS, sparse(64 << 30)))
    yield Malformed("weights-sparse-with-header", huge_layout)
