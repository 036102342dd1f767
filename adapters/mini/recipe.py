"""Recipes for building the mini base model and its adapters: their sizes, training schedules and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from adapters.training.finetune.lora import Rank
from adapters.training.loop.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipePhase:
    """A phase of a training stage with its own batch size. It lasts until the fraction `until` of the steps;
    each batch has `rows` sequences of `length` tokens.
    """

    until: float
    rows: int
    length: int
    parts: int
    """Maximum number of parts of a conversation. A part is one exchange or a few connected ones."""
    late: bool = True
    """True to draw more calculations and more questions about the model, as the later phases of the training
    do.
    """


PHASES = (
    RecipePhase(until=0.4726, rows=32, length=128, parts=3, late=False),
    RecipePhase(until=0.86, rows=32, length=128, parts=3),
    RecipePhase(until=0.95, rows=16, length=256, parts=5),
    RecipePhase(until=1.00, rows=4, length=1024, parts=20),
)


VOICE = Schedule(steps=420, matrix_rate=2.5e-3, rate=1.5e-3, warmup=10, decay=0.8, compiled=True)
OWN = Schedule(steps=100, matrix_rate=2e-3, rate=1e-3, warmup=5, decay=0.9, compiled=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of a build of the mini base model and its adapters. Together with the data, they decide
    the result.
    """

    name: str
    seed: int = 20_251
    vocabulary: int = 4096
    tokenizer_talks: int = 30_000
    """Number of conversations that the tokenizer is trained on."""
    hidden: int = 256
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    intermediate: int = 704
    context: int = 1024
    base: Schedule
    voice: Schedule
    """Schedule of the second stage of the base model's training, in which it learns to speak as OneSeek if a
    system message asks for it.
    """
    own: Schedule
    """Schedule of the third stage of the base model's training, in which it learns to answer as a model
    without a name unless a system message asks for OneSeek.
    """
    phases: tuple[RecipePhase, ...] = PHASES
    adapter: Schedule
    adapter_rows: int = 24
    adapter_length: int = 128
    rank: Rank = field(default_factory=Rank)
    save_every: float = 60.0
    """Seconds between two checkpoints of the training."""
    judged: bool = True
    """True to judge the finished models on the development questions."""


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "smoke": Recipe(
            name="smoke",
            vocabulary=600,
            tokenizer_talks=300,
            hidden=32,
            layers=1,
            heads=2,
            kv_heads=1,
            head=16,
            intermediate=64,
            base=Schedule(steps=6, warmup=2),
            voice=Schedule(steps=2, warmup=1),
            own=Schedule(steps=2, warmup=1),
            phases=(RecipePhase(until=1.0, rows=2, length=128, parts=2),),
            adapter=Schedule(steps=3, warmup=1),
            adapter_rows=2,
            adapter_length=128,
            save_every=0.0,
            judged=False,
        ),
        "quick": Recipe(
            name="quick",
            base=Schedule(steps=900, compiled=True),
            voice=VOICE,
            own=OWN,
            adapter=Schedule(steps=150, rate=3e-3, warmup=10),
        ),
        "full": Recipe(
            name="full",
            base=Schedule(steps=1900, compiled=True),
            voice=VOICE,
            own=OWN,
            adapter=Schedule(steps=150, rate=3e-3, warmup=10),
        ),
    }
)
