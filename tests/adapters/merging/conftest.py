"""Small bases of both families, in several files, and adapters for them made by PEFT."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

SIZES: Mapping[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def random_model(family: str, tied: bool) -> PreTrainedModel:
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied))
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None, tie_word_embeddings=tied))


@pytest.fixture(scope="session")
def make_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A random base of a family, in a type, with tied embeddings or not; in files of at most `shard`."""

    def make(
        family: str = "mistral",
        dtype: torch.dtype = torch.float32,
        *,
        tied: bool = False,
        shard: str = "100KB",
    ) -> Path:
        folder = tmp_path_factory.mktemp("bases") / family
        torch.manual_seed(0)
        model = random_model(family, tied).to(dtype)  # pyright: ignore[reportArgumentType] # its stub is amiss
        model.save_pretrained(folder, max_shard_size=shard)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_base / name, folder)
        (folder / "LICENSE.txt").write_text("a licence\n", encoding="utf-8")
        (folder / "modeling_custom.py").write_text("raise SystemExit\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def make_lora(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A random LoRA for a base; further arguments are PEFT's."""

    def make(base: Path, seed: int = 1, scale: float = 0.1, **config: Any) -> Path:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        given: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **config}
        lora = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **given))
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=scale)
        folder = tmp_path_factory.mktemp("loras") / f"lora-v{seed}"
        lora.save_pretrained(str(folder))
        return folder

    return make
