"""Write a random Mistral checkpoint with a tokenizer, and random PEFT adapters for it, without torch.

    python -m bench.random_model models/random --preset 28m --adapters en:8,sv:8

Each adapter goes to a folder beside the model's folder, here models/random-en and models/random-sv. The model
generates meaningless text, but it has the shape, size and cost of a real model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NumpyArray = NDArray[np.generic]
SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
INITIALIZER_RANGE = 0.02
"""Standard deviation of the weights, as in an untrained Mistral."""
SMALL_16_BITS = {"bfloat16": (0x80FF, 120 << 7), "float16": (0x87FF, 8 << 10)}
"""Maps each 16-bit dtype to two masks for a weight: the bits that are random (sign, lowest exponent bit,
mantissa), and the bits that are set. Magnitudes are then from 2⁻⁷ to 2⁻⁵, with a standard deviation of 0.019.
"""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ message['content'] }}{{ eos_token }}{% else %}[INST]{{ message['content'] }}[/INST]{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The sizes of a decoder, by the names in its `config.json`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int = 4096

    def modules(self) -> dict[str, tuple[str, int, int]]:
        """Map each linear module to its parent module in a layer, its output features and its input
        features.
        """
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": ("self_attn", queries, hidden),
            "k_proj": ("self_attn", keys, hidden),
            "v_proj": ("self_attn", keys, hidden),
            "o_proj": ("self_attn", hidden, queries),
            "gate_proj": ("mlp", inner, hidden),
            "up_proj": ("mlp", inner, hidden),
            "down_proj": ("mlp", hidden, inner),
        }


PRESETS = {
    "5m": DecoderShape(256, 4, 4, 2, 64, 704, 4096),
    "28m": DecoderShape(512, 8, 8, 4, 64, 1408, 4096),
    "152m": DecoderShape(1024, 12, 16, 4, 64, 2816, 8192),
    "1b": DecoderShape(2048, 18, 16, 4, 128, 7168, 32768, 32768),
    "7b": DecoderShape(4096, 32, 32, 8, 128, 14336, 32768, 32768),
}


def at_hand(work: Path, preset: str) -> tuple[Path, dict[str, Path], int]:
    """Return the folder of a random model in `work`, the folders of its adapters `en` and `sv`, and the size
    of its vocabulary. `preset` names the model's size, such as `28m`. Write what does not exist.
    """
    model = work / preset
    adapters = {name: work / f"{preset}-{name}" for name in ("en", "sv")}
    if not model.exists():
        made = [sys.executable, "-m", "bench.random_model", str(model), "--preset", preset]
        subprocess.run([*made, "--adapters", "en:8,sv:8"], check=True)
    return model, adapters, json.loads((model / "config.json").read_text())["vocab_size"]


def write_model(
    out: Path,
    shape: DecoderShape,
    seed: int = 0,
    dtype: str = "float32",
    shard_bytes: int = 1 << 30,
    tied: bool = False,
) -> None:
    """Write the config, the weights and the tokenizer of a random model to `out`. Weights are in files of at
    most about `shard_bytes` bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        **asdict(shape),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": dtype,
    }
    _write_json(out / "config.json", config)
    _write_shards(out, _weights(shape, np.random.default_rng(seed), DTYPES[dtype], tied), shard_bytes)
    write_tokenizer(out, shape.vocab_size)


def write_adapter(out: Path, shape: DecoderShape, rank: int, targets: Sequence[str], seed: int) -> None:
    """Write a random LoRA adapter in PEFT's layout to `out`. It is strong enough to change what the model
    generates. Raises `ValueError` for an unknown target module.
    """
    modules = shape.modules()
    unknown = [name for name in targets if name not in modules]
    if unknown:
        raise ValueError(f"the target module {unknown[0]!r} is unknown; use names of {', '.join(modules)}")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors: dict[str, NumpyArray] = {}
    for layer in range(shape.num_hidden_layers):
        for name in targets:
            folder, outs, ins = modules[name]
            prefix = f"base_model.model.model.layers.{layer}.{folder}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = _normal(rng, (rank, ins), ins**-0.5)
            tensors[f"{prefix}.lora_B.weight"] = _normal(rng, (outs, rank), 0.05)
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": rank}
    config |= {"lora_alpha": 2 * rank, "lora_dropout": 0.0, "bias": "none", "target_modules": sorted(targets)}
    _write_json(out / "adapter_config.json", config | {"fan_in_fan_out": False, "inference_mode": True})


def write_tokenizer(out: Path, vocabulary: int) -> None:
    """Write a byte-level BPE tokenizer to `out`. Its tokens are special tokens, all bytes, and invented
    merges of letters, `vocabulary` in all. Raises `ValueError` if `vocabulary` is too small.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*SPECIAL, *alphabet]
    if vocabulary < len(tokens):
        raise ValueError(
            f"vocab_size {vocabulary} is too small; the bytes and special tokens need at least {len(tokens)}"
        )
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges: list[tuple[str, str]] = []
    grown = letters
    while len(tokens) < vocabulary:
        longer = [(left, right) for left in grown for right in letters][: vocabulary - len(tokens)]
        merges += longer
        grown = [left + right for left, right in longer]
        tokens += grown
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(out / "tokenizer.json"))
    marks = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "chat_template": CHAT_TEMPLATE}
    _write_json(out / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **marks})


def _weights(
    shape: DecoderShape, rng: np.random.Generator, dtype: np.dtype[np.generic], tied: bool
) -> Iterator[tuple[str, NumpyArray]]:
    """Yield the name and the value of every tensor, with the distribution of an untrained model. The standard
    deviation of the logits is then about 0.02 √hidden.
    """

    def matrix(outs: int, ins: int) -> NumpyArray:
        if dtype.name in SMALL_16_BITS:
            return _small_16_bits(rng, (outs, ins), dtype)
        return _normal(rng, (outs, ins), INITIALIZER_RANGE).astype(dtype)

    hidden = shape.hidden_size
    yield "model.embed_tokens.weight", matrix(shape.vocab_size, hidden)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for name, (folder, outs, ins) in shape.modules().items():
            yield f"{prefix}.{folder}.{name}.weight", matrix(outs, ins)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", np.ones(hidden, dtype=dtype)
    yield "model.norm.weight", np.ones(hidden, dtype=dtype)
    if not tied:
        yield "lm_head.weight", matrix(shape.vocab_size, hidden)


def _normal(rng: np.random.Generator, shape: tuple[int, int], deviation: float) -> NDArray[np.float32]:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)


def _small_16_bits(
    rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[np.generic]
) -> NumpyArray:
    """Return a matrix of weights made from random bits. This is ten times as fast as rounding normally
    distributed numbers, which matters for a model of 14 GB.
    """
    chance, fixed = SMALL_16_BITS[dtype.name]
    count = shape[0] * shape[1]
    bits = rng.integers(0, 1 << 64, (count + 3) // 4, dtype=np.uint64).view(np.uint16)[:count]
    bits &= np.uint16(chance)
    bits |= np.uint16(fixed)
    return bits.view(dtype).reshape(shape)


def _write_shards(out: Path, weights: Iterator[tuple[str, NumpyArray]], shard_bytes: int) -> None:
    """Write the tensors to one safetensors file, or to several with an index if they exceed `shard_bytes`
    bytes.
    """
    shards: list[list[str]] = []
    held: dict[str, NumpyArray] = {}
    total = 0

    def flush() -> None:
        save_file(held, out / f"shard-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, value in weights:
        if held and sum(array.nbytes for array in held.values()) + value.nbytes > shard_bytes:
            flush()
        held[name] = value
        total += value.nbytes
    flush()
    if len(shards) == 1:
        (out / "shard-0.safetensors").replace(out / "model.safetensors")
        return
    where: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (out / f"shard-{number}.safetensors").replace(out / file)
        where |= dict.fromkeys(names, file)
    _write_json(
        out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where}
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: write the model and its adapters."""
    parser = argparse.ArgumentParser(
        description="Write a Mistral checkpoint and LoRA adapters with random weights."
    )
    parser.add_argument("out", type=Path, help="folder to write the model to")
    parser.add_argument("--preset", choices=PRESETS, default="28m")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--adapters", default="", help="adapters as NAME:RANK, comma-separated, such as en:8,sv:8"
    )
    parser.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj")
    given = parser.parse_args(arguments)
    shape = PRESETS[given.preset]
    write_model(given.out, shape, given.seed, given.dtype)
    for number, entry in enumerate(filter(None, given.adapters.split(","))):
        name, _, rank = entry.partition(":")
        folder = given.out.with_name(f"{given.out.name}-{name}")
        write_adapter(folder, shape, int(rank or 8), given.targets.split(","), given.seed + 1 + number)
    print(json.dumps({"model": str(given.out), **asdict(shape)}))


if __name__ == "__main__":
    main()
