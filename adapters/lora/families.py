"""The modules that a LoRA may target in each model architecture: their names, paths in a layer, and sizes.

To add an architecture, change this module and `server/engines/embedded/model/families`. This module does not
describe how a model computes, and imports no engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

Half = Literal["A", "B"]
Key = tuple[int, str]
"""A module of a base: the number of its layer, and the short name of its target."""
OUTSIDE_LAYERS = ("lm_head", "embed_tokens", "wte", "wpe")
"""Modules outside the layers that a LoRA may have, but that OneSeek does not serve."""
OUTER_WORDS = "module|_orig_mod|base_model|model|language_model|decoder|transformer"
"""Pattern for the words that training tools write before the list of layers in a tensor's name."""
WidthName = Literal["hidden", "intermediate", "queries", "keys"]
"""Name of one of a base's widths (numbers of features). `queries` and `keys` are the widths of all query or
key heads together.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a base that an adapter must match."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int

    def width(self, size: WidthName) -> int:
        """Return the width that `size` names, as a number of features."""
        widths: dict[WidthName, int] = {
            "hidden": self.hidden,
            "intermediate": self.intermediate,
            "queries": self.heads * self.head_dim,
            "keys": self.kv_heads * self.head_dim,
        }
        return widths[size]


class SizeReader(Protocol):
    """A function that reads a size from a base's config.json. Raises an error that names the field if the
    value is wrong.
    """

    def __call__(self, field: str, default: int | None = None) -> int:
        """Return the value of `field`, or `default` if the field is absent or null."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A linear module of a layer that a LoRA may update."""

    path: str
    """Name of the module inside a layer, such as `self_attn.q_proj`."""
    inputs: WidthName
    outputs: tuple[WidthName, ...]
    """Names of the module's output widths: one for each projection that it computes, in order."""
    transposed: bool = False
    """True if the base stores the weight as [in, out] (transformers' Conv1D). A LoRA's matrices are never
    stored so.
    """
    short: str = ""
    """Short name of the module, for messages and records. Default: the last part of `path`."""

    @property
    def name(self) -> str:
        """Short name of the target for messages and records, unique in its family."""
        return self.short or self.path.rpartition(".")[2]

    @property
    def packed(self) -> bool:
        """True if the module computes several projections at once, such as query, key and value."""
        return len(self.outputs) > 1

    def features(self, sizes: Sizes) -> tuple[int, int]:
        """Return the numbers of input and output features of this module in a base of `sizes`."""
        return sizes.width(self.inputs), sum(map(sizes.width, self.outputs))


@dataclass(frozen=True)
class LoraFamily:
    """A family of architectures whose layers have the same linear modules."""

    title: str
    """The family's name in error messages, such as `Mistral or Llama`."""
    layers: str
    """Name of the list of layers in transformers' model, such as `model.layers`."""
    targets: tuple[Target, ...]
    usual: tuple[str, ...]
    """Names of the targets that training updates by default."""
    read_sizes: Callable[[SizeReader], Sizes]
    complete: bool = True
    """True if a layer has no other linear modules than `targets`."""

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two target modules of {self.title} have the short name {twice[0]!r}: "
                "set the field `short` of one of these Targets to another name"
            )

    @property
    def prefix(self) -> str:
        """Name of the model without its output head in transformers, such as `model`."""
        return self.layers.partition(".")[0]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all targets, in the order in which a layer has them."""
        return tuple(self._by_name)

    def target(self, name: str) -> Target:
        """Return the target with the short name `name`. Raises `KeyError`."""
        return self._by_name[name]

    def module_name(self, layer: int, name: str) -> str:
        """Return the full name of a target in transformers, such as `model.layers.0.self_attn.q_proj`."""
        return f"{self.layers}.{layer}.{self.target(name).path}"

    def factor(self, tensor: str) -> tuple[Key, Half] | None:
        """Return the module, and A or B, to which a tensor of a PEFT file belongs. None if `tensor` is not a
        LoRA matrix of one of this family's targets.
        """
        match = self._factor.fullmatch(tensor)
        if match is None:
            return None
        half: Half = "A" if match["half"] == "A" else "B"
        return (int(match["layer"]), self._by_path[match["path"]]), half

    def renamed(self, tensor: str) -> str | None:
        """Return PEFT's name for a LoRA matrix of one of this family's targets, if `tensor` has other words
        before its layer than PEFT writes. None for any other tensor.
        """
        match = re.fullmatch(rf"(?:(?:{OUTER_WORDS})\.)*({self.layers.rpartition('.')[2]}\..+)", tensor)
        name = "" if match is None else f"base_model.model.{self.layers.rpartition('.')[0]}.{match[1]}"
        return name if name != tensor and self.factor(name) is not None else None

    def stores_transposed(self, names: Iterable[str]) -> bool:
        """Return the value for PEFT's field `fan_in_fan_out`, given the names of the targets (or their dotted
        ends).
        """
        return any(
            target.transposed
            for target in self.targets
            for name in names
            if f".{target.path}".endswith(f".{name}")
        )

    def has_none(self, target: str) -> bool:
        """True if no base of this family has a linear module that the entry `target` of target_modules could
        mean.
        """
        last = target.rpartition(".")[2]
        known = {part.path.rpartition(".")[2] for part in self.targets}
        return self.complete and last not in known and last not in OUTSIDE_LAYERS

    @cached_property
    def _by_name(self) -> dict[str, Target]:
        return {target.name: target for target in self.targets}

    @cached_property
    def _by_path(self) -> dict[str, str]:
        return {target.path: target.name for target in self.targets}

    @cached_property
    def _factor(self) -> re.Pattern[str]:
        paths = "|".join(map(re.escape, self._by_path))
        return re.compile(
            rf"base_model\.model\.{re.escape(self.layers)}\.(?P<layer>0|[1-9][0-9]{{0,3}})\."
            rf"(?P<path>{paths})\.lora_(?P<half>[AB])(?:\.[A-Za-z0-9_-]{{1,64}})?\.weight"
        )


def _llama_sizes(size: SizeReader) -> Sizes:
    hidden, heads = size("hidden_size"), size("num_attention_heads")
    return Sizes(
        hidden=hidden,
        intermediate=size("intermediate_size"),
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", hidden // heads),
        layers=size("num_hidden_layers"),
    )


def _qwen3_sizes(size: SizeReader) -> Sizes:
    return replace(_llama_sizes(size), head_dim=size("head_dim", 128))


_ATTENTION = (
    Target("self_attn.q_proj", "hidden", ("queries",)),
    Target("self_attn.k_proj", "hidden", ("keys",)),
    Target("self_attn.v_proj", "hidden", ("keys",)),
    Target("self_attn.o_proj", "queries", ("hidden",)),
)
_DOWN = Target("mlp.down_proj", "intermediate", ("hidden",))

LLAMA = LoraFamily(
    title="Mistral or Llama",
    layers="model.layers",
    targets=(
        *_ATTENTION,
        Target("mlp.gate_proj", "hidden", ("intermediate",)),
        Target("mlp.up_proj", "hidden", ("intermediate",)),
        _DOWN,
    ),
    usual=("q_proj", "v_proj"),
    read_sizes=_llama_sizes,
)
QWEN2 = replace(LLAMA, title="Qwen2")
QWEN3 = replace(LLAMA, title="Qwen3", read_sizes=_qwen3_sizes)
MIXTRAL = replace(LLAMA, title="Mixtral", targets=_ATTENTION, complete=False)
"""Modules of Mixtral, a mixture of experts: only the attention modules, as in Llama. A LoRA cannot target the
experts.
"""
PHI3 = LoraFamily(
    title="Phi-3",
    layers="model.layers",
    targets=(
        Target("self_attn.qkv_proj", "hidden", ("queries", "keys", "keys")),
        Target("self_attn.o_proj", "queries", ("hidden",)),
        Target("mlp.gate_up_proj", "hidden", ("intermediate", "intermediate")),
        _DOWN,
    ),
    usual=("qkv_proj",),
    read_sizes=_llama_sizes,
)


def _gpt2_sizes(size: SizeReader) -> Sizes:
    hidden, heads = size("n_embd"), size("n_head")
    return Sizes(
        hidden=hidden,
        intermediate=size("n_inner", 4 * hidden),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        layers=size("n_layer"),
    )


GPT2 = LoraFamily(
    title="GPT-2",
    layers="transformer.h",
    targets=(
        Target("attn.c_attn", "hidden", ("queries", "keys", "keys"), transposed=True),
        Target("attn.c_proj", "queries", ("hidden",), transposed=True, short="attn.c_proj"),
        Target("mlp.c_fc", "hidden", ("intermediate",), transposed=True),
        Target("mlp.c_proj", "intermediate", ("hidden",), transposed=True, short="mlp.c_proj"),
    ),
    usual=("c_attn",),
    read_sizes=_gpt2_sizes,
)
"""Modules of GPT-2 and GPT-SW3. Each layer has two modules called `c_proj`."""

FAMILIES: Mapping[str, LoraFamily] = {
    "mistral": LLAMA,
    "llama": LLAMA,
    "cohere": LLAMA,
    "ernie4_5": LLAMA,
    "exaone4": LLAMA,
    "gemma": LLAMA,
    "gemma2": LLAMA,
    "gemma3_text": LLAMA,
    "granite": LLAMA,
    "helium": LLAMA,
    "hunyuan_v1_dense": LLAMA,
    "ministral": LLAMA,
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "olmo3": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "seed_oss": LLAMA,
    "smollm3": LLAMA,
    "stablelm": LLAMA,
    "glm4": MIXTRAL,
    "mixtral": MIXTRAL,
    "qwen2_moe": MIXTRAL,
    "qwen3_moe": MIXTRAL,
    "starcoder2": MIXTRAL,
    "phi3": PHI3,
    "gpt2": GPT2,
}
"""Maps the `model_type` in a base's config.json to the family of its modules. Not every engine runs every
family.
"""


def family_of_tensors(tensors: Iterable[str]) -> LoraFamily:
    """Return the family to which most of the tensors in a PEFT file belong. The first such family if several
    have equally many.

    Used if the adapter's base is not available.
    """
    names = list(tensors)
    candidates = dict.fromkeys(FAMILIES.values())
    return max(candidates, key=lambda family: sum(family.factor(name) is not None for name in names))
