"""Tiny checkpoints and adapters made by transformers and PEFT, and what those two compute with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapters.lora import families as lora_families

VOCABULARY = 96
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERY = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
ADAPTERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "en": (4, ATTENTION),
    "sv": (8, EVERY),
    "qv": (3, ("q_proj", "v_proj")),
    "mlp": (5, ("down_proj", "gate_proj")),
}
"""Name → rank and targets."""
FAMILIES: dict[str, tuple[Any, Any]] = {
    "mistral": (MistralConfig, MistralForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gpt2": (GPT2Config, GPT2LMHeadModel),
}
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
}
GPT2_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_inner": 96,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
SHAPES: dict[str, dict[str, Any]] = {
    "mistral": SHAPE | {"sliding_window": None},
    "llama": SHAPE,
    "qwen2": SHAPE,
    "qwen3": SHAPE | {"head_dim": 16},
    "gpt2": GPT2_SHAPE,
}


def write_model(
    folder: Path,
    family: str = "mistral",
    dtype: torch.dtype = torch.float32,
    shard: str = "1GB",
    **changes: Any,
) -> Path:
    """A random checkpoint, as transformers saves it."""
    torch.manual_seed(0)
    config_class, model_class = FAMILIES[family]
    model = model_class(config_class(**(SHAPES[family] | changes)))
    for name, parameter in model.named_parameters():
        # Zero and one in a new model, which would hide that they are not read.
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        elif name.endswith(("_norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return folder


def write_adapter(folder: Path, base: Path, rank: int, targets: Sequence[str], seed: int) -> Path:
    """A random adapter strong enough to move logits by about their own size, as PEFT saves it."""
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        fan_in_fan_out=lora_families.FAMILIES[model.config.model_type].stores_transposed(targets),
    )
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder))
    return folder


class Reference:
    """transformers + PEFT in float32."""

    def __init__(self, base: Path, adapters: dict[str, Path] | None = None) -> None:
        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self._adapters = adapters or {}
        for name, path in self._adapters.items():
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(path), name)
            else:
                self._model = PeftModel.from_pretrained(self._model, str(path), adapter_name=name).eval()

    def logits(self, tokens: Sequence[int], voice: Sequence[tuple[str, float]] = ()) -> NDArray[np.float32]:
        """[len(tokens), vocabulary]; a voice of several is the sum of their weighted updates."""
        ids = torch.tensor([list(tokens)])
        with torch.no_grad():
            if not voice and self._adapters:
                with self._model.disable_adapter():
                    return self._model(ids).logits[0].numpy()
            if voice:
                self._model.set_adapter(self._blend(voice))
            return self._model(ids).logits[0].numpy()

    def _blend(self, voice: Sequence[tuple[str, float]]) -> str:
        """The name of the adapter that is this voice."""
        names, weights = [name for name, _ in voice], [weight for _, weight in voice]
        if weights == [1.0]:
            return names[0]
        name = "+".join(f"{weight:g}{name}" for name, weight in voice).replace(".", "_")
        if name not in self._model.peft_config:
            self._model.add_weighted_adapter(names, weights, name, combination_type="cat")
        return name
