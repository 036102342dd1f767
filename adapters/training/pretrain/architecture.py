"""Read the `model` section of an arch.yaml: the architecture of a new base model, with the field names of
transformers' config.

It accepts only architectures that OneSeek's engines can run: the Mistral and Llama families, with their usual
activation function and without biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedTokenizerBase

from adapters.training.loop.options import OptionError
from adapters.training.pretrain.pretrain_options import near

FAMILIES: Mapping[str, type[PreTrainedConfig]] = {"llama": LlamaConfig, "mistral": MistralConfig}
_TAKEN = {
    "vocab_size": "comes from the tokenizer",
    "bos_token_id": "comes from the tokenizer",
    "eos_token_id": "comes from the tokenizer",
    "pad_token_id": "comes from the tokenizer",
    "dtype": "comes from training.saved_as",
    "torch_dtype": "comes from training.saved_as",
}
_LEFT_OUT = frozenset({"hidden_act", "attention_bias", "mlp_bias", "pretraining_tp", "use_cache"})
_NEEDED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def check_architecture(model: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the model family in `model`, such as `mistral`, and the other fields. Raises `OptionError` if a
    field is unknown, missing or invalid.
    """
    about = dict(model)
    family = about.pop("model_type", "mistral")
    if family not in FAMILIES:
        raise OptionError(
            "model.model_type",
            f"the model family {family!r} is not supported; use one of {', '.join(FAMILIES)}",
        )
    fields = FAMILIES[family].__annotations__
    known = {name for name in fields if name not in _TAKEN and name not in _LEFT_OUT}
    for name in about:
        if name in _TAKEN:
            raise OptionError(f"model.{name}", f"the value always {_TAKEN[name]}; leave this field out")
        if name not in known:
            raise OptionError(
                f"model.{name}", f"a {family} model has no field of this name{near(name, known)}"
            )
    for name in _NEEDED:
        if name not in about:
            raise OptionError(f"model.{name}", "the field is missing; give a number")
    _check(about)
    return family, about


def read_architecture(model: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the transformers config for the architecture `model`, with the vocabulary size and special
    tokens of `tokenizer`. Raises `OptionError`.
    """
    family, about = check_architecture(model)
    if family == "mistral":
        about.setdefault("sliding_window", None)
    heads = about["num_attention_heads"]
    about.setdefault("num_key_value_heads", heads)
    about.setdefault("head_dim", about["hidden_size"] // heads)
    about["vocab_size"] = len(cast("Any", tokenizer))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        about[name] = getattr(tokenizer, name)
    try:
        return FAMILIES[family](**about)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise OptionError("model", " ".join(str(error).split())) from error


def _check(about: Mapping[str, Any]) -> None:
    for name in (*_NEEDED, "num_key_value_heads", "head_dim"):
        value = about.get(name, 1)
        if type(value) is not int or value < 1:
            raise OptionError(
                f"model.{name}", f"{value!r} is not allowed here; give a whole number of at least 1"
            )
    heads, keys = about["num_attention_heads"], about.get("num_key_value_heads", 1)
    if heads % keys:
        raise OptionError(
            "model.num_key_value_heads",
            f"{keys} does not divide num_attention_heads, which is {heads}; use a number that divides it",
        )
    if "head_dim" not in about and about["hidden_size"] % heads:
        raise OptionError(
            "model.num_attention_heads",
            f"{heads} does not divide hidden_size; give head_dim, or a number of heads that divides it",
        )
