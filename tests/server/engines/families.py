"""Tiny random bases of each family, and adapters for them, alike in size to the tiny Mistral."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OTHERS = ("llama", "qwen2", "qwen3", "gpt2")
"""Every family but Mistral, which is the usual one."""
FAMILIES = ("mistral", *OTHERS)
_ROTARY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
}
_GPT2: dict[str, Any] = {"n_embd": 64, "n_inner": 128, "n_layer": 3, "n_head": 2, "n_positions": 256}
_LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_SHAPES: dict[str, dict[str, Any]] = {
    "llama": _ROTARY | {"rope_parameters": _LLAMA3},
    "qwen2": _ROTARY | {"tie_word_embeddings": True},
    "qwen3": _ROTARY,
    "gpt2": _GPT2,
}
_EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def few(family: str) -> tuple[str, ...]:
    """Some target modules."""
    return ("c_attn",) if family == "gpt2" else ("q_proj", "v_proj")


def every(family: str) -> tuple[str, ...]:
    """All target modules."""
    return ("c_attn", "c_proj", "c_fc") if family == "gpt2" else _EVERY


def write_base(folder: Path, family: str, vocabulary: int, tokenizer: Path) -> Path:
    """A random checkpoint with the tokenizer of the folder `tokenizer`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config: Any = AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        **_SHAPES[family],
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.float().eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


def write_adapter(
    folder: Path, base: Path, seed: int, rank: int, targets: Sequence[str], scale: float
) -> Path:
    """A random adapter, as PEFT saves it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from adapters.lora.families import FAMILIES as KNOWN

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        fan_in_fan_out=KNOWN[model.config.model_type].stores_transposed(targets),
    )
    wrapped: Any = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=scale)
    wrapped.save_pretrained(str(folder))
    return folder
