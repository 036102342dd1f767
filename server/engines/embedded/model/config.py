"""The sizes of a decoder, and the interface of the families (architectures) that this engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from adapters.lora.families import LoraFamily, Sizes

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import GraphPlan
    from server.engines.embedded.model.rope import Rope

ConfigFields = Mapping[str, object]
"""The contents of a base's config.json."""
Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu"]
"""`gelu` uses the error function; `gelu_tanh` is its approximation (Hendrycks and Gimpel, 2016)."""


class UnsupportedModelError(ValueError):
    """The checkpoint needs a feature that this engine does not support. The message names the feature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The sizes of one decoder. Each layer has grouped-query attention and an MLP."""

    family: Family
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    """Maximum number of positions that the base supports."""
    norm_epsilon: float
    rope: Rope | None
    """The rotary position encoding (RoPE); None if the model has learned positions instead."""
    tied_head: bool
    """True if the output head is the embedding, transposed."""
    sliding_window: int | None = None
    """A position sees itself and the `sliding_window - 1` before it; None: everything before it."""
    activation: Activation = "silu"
    """Activation between the matrix products of the MLP."""
    biases: frozenset[str] = frozenset()
    """Keys of `groups` whose product adds a bias."""
    head_norm: bool = False
    """True if each head's queries and keys are RMS-normalised before they are rotated."""
    score_scales: tuple[float, ...] = ()
    """Factor of the attention scores in each layer. Default: 1 / sqrt(head size) in all of them."""

    def score_scale(self, layer: int) -> float:
        """Return the factor that a layer's attention scores (query times key) are multiplied by."""
        return self.score_scales[layer] if self.score_scales else self.head_dim**-0.5

    @property
    def query_width(self) -> int:
        """Features of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Features of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Maps each name of a matrix product to the target modules that it computes side by side."""
        return self.family.groups

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Maps each target module to (out features, in features)."""
        sizes = Sizes(
            hidden=self.hidden,
            intermediate=self.intermediate,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            layers=self.layers,
        )
        features = {target.name: target.features(sizes) for target in self.family.lora.targets}
        return {name: (out, inputs) for name, (inputs, out) in features.items()}


class Blocks(Protocol):
    """Building blocks with which a family writes its decoder as a graph.

    Methods take and return names of tensors. Shapes of activations depend on the graph variant.
    """

    @property
    def graph(self) -> GraphPlan:
        """The graph being written, for operators that are the same in both variants."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The decoder's sizes, as read from config.json."""
        ...

    def weight(self, name: str, *shape: int) -> str:
        """Add a checkpoint tensor of this shape unchanged, in the graph's float type."""
        ...

    def embed_tokens(self, name: str) -> str:
        """Look up every token of the batch in the checkpoint tensor `name` [vocabulary, hidden]."""
        ...

    def embed_positions(self, name: str) -> str:
        """Look up every token's position in the checkpoint tensor `name` [context, hidden]."""
        ...

    def rms_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update). An empty `update` is not added."""
        ...

    def layer_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Like `rms_norm`, but a LayerNorm with weight `name`.weight and bias `name`.bias."""
        ...

    def linear(self, group: str, layer: int, x: str) -> str:
        """Multiply `x` by the weights of a group's modules. Add their bias and the LoRA updates."""
        ...

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv`, which holds queries, keys and values side by side.

        `norms` names the weights [head size] by which each head's queries and keys are RMS-normalised.
        """
        ...

    def activate(self, x: str) -> str:
        """Apply the config's activation to `x`."""
        ...

    def choose_outputs(self, x: str) -> str:
        """Select the M positions whose logits are wanted. Returns [M, hidden]."""
        ...

    def head(self, x: str, name: str) -> None:
        """Multiply chosen positions by the checkpoint tensor `name` [vocabulary, hidden] to get logits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """A group of architectures whose config.json and decoder have the same form."""

    lora: LoraFamily
    """Names, places and shapes of the linear modules in a layer, which LoRA adapters can target."""
    architectures: Mapping[str, str]
    """`model_type` in config.json → the only value that its `architectures` may have."""
    groups: Mapping[str, tuple[str, ...]]
    """Maps each name of a matrix product to the target modules that it computes, in the order of its
    outputs.
    """
    read: Callable[[ConfigFields], ModelConfig]
    """Reads config.json. Raises `UnsupportedModelError` for a feature that would change the result."""
    write: Callable[[Blocks], None]
    """Writes the whole decoder, from token ids to logits."""
    computed: str = r"(?!)"
    """Pattern of names of checkpoint buffers that the decoder computes itself. Default: none."""


def read_count(raw: ConfigFields, name: str) -> int:
    """Read a field. Raises `UnsupportedModelError` unless it is a positive integer."""
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(f"{name} {value!r} is not a positive integer")
    return value


def read_flag(raw: ConfigFields, name: str, default: bool) -> bool:
    """Read a field. Raises `UnsupportedModelError` unless it is true or false."""
    value = raw.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UnsupportedModelError(f"{name} {value!r} is neither true nor false")
    return value


def read_epsilon(raw: ConfigFields, name: str, default: float) -> float:
    """Read the epsilon of the norms. Raises `UnsupportedModelError` if it is invalid."""
    value = raw.get(name, default)
    if not isinstance(value, float) or not 0.0 < value < 1.0:
        raise UnsupportedModelError(f"{name} {value!r} is not a small positive number")
    return value
