"""Write a Mistral checkpoint as a GGUF file for llama.cpp, with the same weights in Q4_0 or in 16 bits.

    ENV/bin/python -m bench.rivals.gguf models/random models/random.gguf
    ENV/bin/python -m bench.rivals.gguf models/random models/random-f16.gguf --type F16

ENV is a Python environment with `gguf`, `safetensors` and `ml_dtypes`. Only one converted tensor is in memory
at a time. If the checkpoint has a byte-level tokenizer (as from `bench.random_model`) or a SentencePiece-like
one (as Mistral's), the file also gets its vocabulary and chat template. Without a tokenizer, llama.cpp
accepts only token ids.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from bench.rivals.gguf_vocabulary import write_vocabulary

gguf: Any = import_module("gguf")  # of the rival's environment, not of ours
import_module("ml_dtypes")  # NumPy learns bfloat16 from it

BLOCK, BLOCK_BYTES = 32, 18
"""Number of weights in a Q4_0 block, and the bytes of a block: a half-precision scale and 32 values of 4
bits.
"""
ROWS_BYTES = 64 << 20
PLAIN = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_A_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model: Path, out: Path, kind: str = "Q4_0") -> None:
    """Write the checkpoint `model` as the GGUF file `out`, through a temporary file. `kind` is the format of
    its matrices: `Q4_0` or `F16`.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    partial = out.with_name(out.name + ".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    _describe(writer, config)
    if (model / "tokenizer.json").is_file():
        write_vocabulary(writer, model, gguf.TokenType)
    else:
        writer.add_tokenizer_model("none")
    tensors = list(_tensors(model, config))
    for name, shape, _ in tensors:
        if len(shape) == 1:
            writer.add_tensor_info(name, shape, np.dtype(np.float32), shape[0] * 4)
        elif kind == "F16":
            writer.add_tensor_info(name, shape, np.dtype(np.float16), shape[0] * shape[1] * 2)
        else:
            packed = (shape[0], shape[1] // BLOCK * BLOCK_BYTES)
            form = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor_info(name, packed, np.dtype(np.uint8), packed[0] * packed[1], form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape, read in tensors:
        writer.write_tensor_data(
            _to_float32(read) if len(shape) == 1 else _matrix(name, shape, read, config, kind)
        )
    writer.close()
    partial.replace(out)


def _describe(writer: Any, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _tensors(model: Path, config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield every tensor: its name in llama.cpp, its shape, and a safetensors slice to read it from."""
    index = model / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    where = {name: file for file in sorted(files) for name in _names(model / file)}
    # llama.cpp takes the embedding for the output matrix where a file has none.
    names = {theirs: ours for theirs, ours in PLAIN.items() if theirs in where}
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in IN_A_LAYER.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{ours}.weight"
    opened = {file: safe_open(model / file, framework="numpy") for file in sorted(files)}
    for name, ours in names.items():
        tensor = opened[where[name]].get_slice(name)
        yield ours, tuple(tensor.get_shape()), tensor


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="numpy") as opened:
        return list(opened.keys())


def _to_float32(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(tensor[:], dtype=np.float32)


def _matrix(
    name: str, shape: tuple[int, ...], tensor: Any, config: dict[str, Any], kind: str
) -> NDArray[np.generic]:
    rows, columns = shape
    half = kind == "F16"
    packed: NDArray[np.generic] = (
        np.empty((rows, columns), dtype=np.float16)
        if half
        else np.empty((rows, columns // BLOCK * BLOCK_BYTES), dtype=np.uint8)
    )
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
    part = name.split(".")[-2]
    step = config["head_dim"] if part in heads else 1
    size = max(step, ROWS_BYTES // (columns * 4) // step * step)
    for start in range(0, rows, size):
        block = np.asarray(tensor[start : min(rows, start + size)], dtype=np.float32)
        if part in heads:
            block = _interleaved(block, config["head_dim"])
        packed[start : start + len(block)] = (
            block.astype(np.float16) if half else gguf.quants.quantize(block, gguf.GGMLQuantizationType.Q4_0)
        )
    return packed


def _interleaved(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Reorder the rows of a query or key matrix for llama.cpp, which needs the two values that RoPE rotates
    together side by side.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def main() -> None:
    """Run the command line: convert a checkpoint to GGUF."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--type",
        choices=("Q4_0", "F16"),
        default="Q4_0",
        help="number format of every matrix in the GGUF file",
    )
    given = parser.parse_args()
    write_gguf(given.model, given.out, given.type)


if __name__ == "__main__":
    main()
