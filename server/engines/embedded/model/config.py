"""What a decoder's family and sizes are, whatever its architecture; no family in particular is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from adapters.lora.families import LoraFamily, Sizes

if TYPE_CHECKING:
    from server.engines.embedded.model.plan import GraphPlan
    from server.engines.embedded.model.rope import Rope

ConfigFields = Mapping[str, object]
"""A base's config.json, parsed."""
Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu"]
"""`gelu` is exact, by the error function; `gelu_tanh` the approximation (Hendrycks and Gimpel, 2016)."""


class UnsupportedModelError(ValueError):
    """The checkpoint asks for something this engine does not do; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The sizes of one decoder: attention whose query heads share key and value heads, layer upon layer."""

    family: Family
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    """Most positions."""
    norm_epsilon: float
    rope: Rope | None
    """How queries and keys are rotated; None if the positions are learned and added to the embedding."""
    tied_head: bool
    """True if the output head is the embedding, transposed."""
    sliding_window: int | None = None
    """A position sees itself and the `sliding_window - 1` before it; None: everything before it."""
    activation: Activation = "silu"
    """Between the products of the MLP."""
    biases: frozenset[str] = frozenset()
    """Groups whose products have a bias."""
    head_norm: bool = False
    """True if each head's queries and keys are RMS-normalised before they are rotated."""
    score_scales: tuple[float, ...] = ()
    """What scores are multiplied by in each layer. Default: one over the root of the head size."""

    def score_scale(self, layer: int) -> float:
        """What the products of queries and keys are multiplied by in a layer."""
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
        """Name of a product → the target modules that it computes side by side."""
        return self.family.groups

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Target module → (out features, in features)."""
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
    """What a family writes its decoder with. Tensors go by name; each graph variant has shapes of its own."""

    @property
    def graph(self) -> GraphPlan:
        """The graph that is written, for operators that both variants run alike."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The decoder's sizes."""
        ...

    def weight(self, name: str, *shape: int) -> str:
        """A checkpoint tensor as it is, in the graph's float type."""
        ...

    def embed_tokens(self, name: str) -> str:
        """Rows of the checkpoint's `name` [vocabulary, hidden] for every token of the batch."""
        ...

    def embed_positions(self, name: str) -> str:
        """Rows of the checkpoint's `name` [context, hidden] for every token's position."""
        ...

    def rms_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """(RMS norm of residual + update, residual + update); without `update`, of the residual alone."""
        ...

    def layer_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """The same with a LayerNorm, whose weight and bias are `name`.weight and `name`.bias."""
        ...

    def linear(self, group: str, layer: int, x: str) -> str:
        """One product for all modules of a group, its bias if it has one, and what the adapters add to it."""
        ...

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """What each position attends to, from queries, keys and values side by side.

        `norms` names the weights [head size] by which each head's queries and keys are RMS-normalised.
        """
        ...

    def activate(self, x: str) -> str:
        """The config's activation of `x`."""
        ...

    def choose_outputs(self, x: str) -> str:
        """Only the positions that want logits: [M, hidden]."""
        ...

    def head(self, x: str, name: str) -> None:
        """Logits of chosen positions, by the checkpoint's `name` [vocabulary, hidden]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """Architectures whose decoders are read and written alike. There is one object for each."""

    lora: LoraFamily
    """The names, places and shapes of the linear modules in a layer."""
    architectures: Mapping[str, str]
    """`model_type` → the only architecture that its config.json may name."""
    groups: Mapping[str, tuple[str, ...]]
    """Name of a product → the target modules that it computes, in the order of its outputs."""
    read: Callable[[ConfigFields], ModelConfig]
    """From config.json. Raises `UnsupportedModelError` for what would change the result and is not built."""
    write: Callable[[Blocks], None]
    """Everything from token ids to logits."""
    computed: str = r"(?!)"
    """Matches names of buffers in a checkpoint that the decoder computes itself. Default: none."""


def read_count(raw: ConfigFields, name: str) -> int:
    """A field that has to be a positive integer. Raises `UnsupportedModelError`."""
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(f"{name} {value!r} is not a positive integer")
    return value


def read_flag(raw: ConfigFields, name: str, default: bool) -> bool:
    """A field that is true or false. Raises `UnsupportedModelError`."""
    value = raw.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise UnsupportedModelError(f"{name} {value!r} is neither true nor false")
    return value


def read_epsilon(raw: ConfigFields, name: str, default: float) -> float:
    """A norm's epsilon. Raises `UnsupportedModelError`."""
    value = raw.get(name, default)
    if not isinstance(value, float) or not 0.0 < value < 1.0:
        raise UnsupportedModelError(f"{name} {value!r} is not a small positive number")
    return value
