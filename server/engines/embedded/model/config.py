"""The dimensions and options of a decoder, and the interface of the model families (such as Llama and GPT-2)
that the engine runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from adapters.lora.families import LoraFamily, Sizes

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import GraphPlan
    from server.engines.embedded.model.rope import Rope

ConfigFields = Mapping[str, object]
"""The fields of a base model's config.json."""
Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu"]
"""Activation function of the MLP. `gelu` uses the error function; `gelu_tanh` is its approximation (Hendrycks
and Gimpel, 2016).
"""


class UnsupportedModelError(ValueError):
    """The checkpoint needs a feature that the embedded engine does not support.

    The message names the feature.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The dimensions and options of a decoder whose layers have grouped-query attention and an MLP."""

    family: Family
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    """Maximum number of positions that the base model supports."""
    norm_epsilon: float
    rope: Rope | None
    """The rotary position encoding (RoPE); None if the model has learned positions instead."""
    tied_head: bool
    """True if the output head uses the embedding's weights, transposed."""
    sliding_window: int | None = None
    """A position attends to itself and the `sliding_window - 1` positions before it. None: to all positions
    before it.
    """
    activation: Activation = "silu"
    """Activation function of the MLP."""
    biases: frozenset[str] = frozenset()
    """The keys of `groups` (such as `qkv`) whose matrix product adds a bias."""
    head_norm: bool = False
    """True if queries and keys are RMS-normalised in each head, before the rotary embedding is applied."""
    score_scales: tuple[float, ...] = ()
    """Factor for the attention scores of each layer. Empty: 1 / sqrt(head size) in all layers."""

    def score_scale(self, layer: int) -> float:
        """Return the factor by which a layer's attention scores (query times key) are multiplied."""
        return self.score_scales[layer] if self.score_scales else self.head_dim**-0.5

    @property
    def query_width(self) -> int:
        """Number of features of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Number of features of all key heads together (and of all value heads)."""
        return self.kv_heads * self.head_dim

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Maps each matrix product (such as `qkv`) to the linear modules that it computes side by side."""
        return self.family.groups

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Maps each linear module that LoRA can target to its (output features, input features)."""
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
    """Building blocks from which a model family composes its decoder as an ONNX graph.

    Methods take and return names of tensors. The shape of activations depends on the graph variant (fused for
    the CPU, portable for other devices).
    """

    @property
    def graph(self) -> GraphPlan:
        """The ONNX graph that is being written, for operators that are the same in both graph variants."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The decoder's dimensions and options, as read from config.json."""
        ...

    def weight(self, name: str, *shape: int) -> str:
        """Add the checkpoint tensor `name` of this shape to the graph, in the graph's float type."""
        ...

    def embed_tokens(self, name: str) -> str:
        """Look up the embedding of every token of the batch in the checkpoint tensor `name` [vocabulary,
        hidden].
        """
        ...

    def embed_positions(self, name: str) -> str:
        """Look up the embedding of every token's position in the checkpoint tensor `name` [context,
        hidden].
        """
        ...

    def rms_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update).

        If `update` is empty, nothing is added.
        """
        ...

    def layer_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Normalise residual + update with the LayerNorm `name`.

        Return the norm and the sum; an empty `update` is not added.
        """
        ...

    def linear(self, group: str, layer: int, x: str) -> str:
        """Multiply `x` by the weights of all linear modules in `group`, and add their bias and their LoRA
        updates.
        """
        ...

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv`, which holds queries, keys and values side by side.

        `norms` names the RMS norm weights [head size] for each head's queries and keys. If it is empty, they
        are not normalised.
        """
        ...

    def activate(self, x: str) -> str:
        """Apply the MLP's activation function (from the config) to `x`."""
        ...

    def choose_outputs(self, x: str) -> str:
        """Select the M positions of the batch for which logits are computed.

        Returns activations of shape [M, hidden].
        """
        ...

    def head(self, x: str, name: str) -> None:
        """Multiply the selected positions `x` by the checkpoint tensor `name` [vocabulary, hidden] to get
        their logits.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """A group of architectures, such as Mistral and Llama, whose config.json and decoder have the same
    form.
    """

    lora: LoraFamily
    """Names, positions and shapes of a layer's linear modules, which LoRA adapters can target."""
    architectures: Mapping[str, str]
    """Maps each `model_type` in config.json to the only architecture that the field `architectures` may
    name.
    """
    groups: Mapping[str, tuple[str, ...]]
    """Maps each matrix product (such as `qkv`) to the linear modules that it computes, in the order of their
    outputs.
    """
    read: Callable[[ConfigFields], ModelConfig]
    """Reads config.json. Raises `UnsupportedModelError` if a feature that changes the answers is not
    supported.
    """
    write: Callable[[Blocks], None]
    """Adds the whole decoder to an ONNX graph, from token ids to logits."""
    computed: str = r"(?!)"
    """Pattern for names of checkpoint tensors that the graph does not need, since the decoder computes them
    itself. Default: no names.
    """


def read_count(raw: ConfigFields, name: str) -> int:
    """Read the field `name` of config.json.

    Raises `UnsupportedModelError` unless it is a positive integer.
    """
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(
            f"config.json: the field {name} {value!r} is not a positive integer; download the model again"
        )
    return value


def read_flag(raw: ConfigFields, name: str, default: bool) -> bool:
    """Read the field `name` of config.json. Raises `UnsupportedModelError` unless it is true or false."""
    value = raw.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UnsupportedModelError(
            f"config.json: the field {name} {value!r} is not true or false; download the model again"
        )
    return value


def read_epsilon(raw: ConfigFields, name: str, default: float) -> float:
    """Read the normalisation layers' epsilon from the field `name` of config.json.

    Raises `UnsupportedModelError` unless it is between 0 and 1.
    """
    value = raw.get(name, default)
    if not isinstance(value, float) or not 0.0 < value < 1.0:
        raise UnsupportedModelError(
            f"config.json: the field {name} {value!r} is not a number between 0 and 1; download the model "
            "again"
        )
    return value
