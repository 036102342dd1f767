"""Sections of the settings: engine, routing of requests to adapters, and rollout of new versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from adapters.numerals import parse_number
from server.config.limits import DAY
from server.config.values import SettingsError, within

WITHOUT_OPTIONS = frozenset({"embedded"})
"""Engines for which the setting `engine.options` must be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The `engine:` section: which engine runs the base, and options that only this engine knows."""

    kind: Literal["auto", "embedded", "vllm"] = "auto"
    """`embedded` (ONNX Runtime), `vllm` (CUDA), or `auto`: vllm if installed and a GPU is visible."""
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """vLLM's options, by vLLM's names, such as tensor_parallel_size=2. In the file: keys under engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """The `routing:` section: how to choose an adapter for a request that names none."""

    threshold: float | None = None
    """Lowest probability (0 to 1) at which an undecided text goes to its likeliest language's adapter."""
    undecided: Literal["likeliest", "accept-language", "default", "base"] | None = None
    """Policy for a text whose language is undecided. Default: likeliest."""
    unsupported: Literal["base", "default"] | None = None
    """Policy for a text in a language without an adapter. Default: base."""
    default: str | None = None
    """Alias of an adapter, or `base`, that answers if nothing else decides. Default: see docs/routing.md."""
    languages: Mapping[str, str] = field(default_factory=dict[str, str])
    """Alias for each language code, such as sv=oneseek-7b-zero-sv. Overrides the adapters' own languages."""
    weights: Mapping[str, str] = field(default_factory=dict[str, str])
    """Prior weight of each language code, such as sv=3,en=1. Default: 1 each."""
    sure: float | None = None
    """Lowest probability, from threshold to 1, at which a language counts as decided. Default: 0.9."""
    other_prior: float | None = None
    """Prior probability (0.01 to 0.99) that a text is in a language without an adapter. Default: 0.5."""
    stay: float | None = None
    """Probability (up to 0.999) that a user's next message is in the same language. Default: 0.9."""
    history: int | None = None
    """Number of user messages in a conversation that routing reads (1 to 50), including the latest. Default:
    6.
    """
    hint: float | None = None
    """Factor (1 to 10) for the probability of the first known language in Accept-Language. Default: 1.5."""
    topics: bool = True
    """Route a question to an adapter with similar example questions, if any adapter has examples."""

    def __post_init__(self) -> None:
        if self.threshold is not None:
            within("routing.threshold", self.threshold, 0, 1)
        within("routing.sure", self.sure, 0, 1)
        within("routing.other_prior", self.other_prior, 0.01, 0.99)
        within("routing.stay", self.stay, 0, 0.999)
        for name, value, most in (("history", self.history, 50), ("hint", self.hint, 10)):
            within(f"routing.{name}", value, 1, most)
        for code in self.weights:
            self.weight(code)
        for code in self.languages:
            if not re.fullmatch(r"[a-z]{2,3}", code):
                raise SettingsError(
                    "routing.languages",
                    f"{code!r} is not a language code; use two or three lower-case letters, such as 'sv'",
                )

    def weight(self, code: str) -> float:
        """Prior weight of a language, relative to the other languages. Raises `SettingsError` if it is
        invalid.
        """
        text = self.weights.get(code, "1")
        try:
            weight = parse_number(text)
        except ValueError as error:
            raise SettingsError("routing.weights", f"the weight {text!r} of {code!r} {error}") from None
        within(f"routing.weights.{code}", weight, 0.001, 1000)
        return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """The `rollout:` section: how to compare a canary or a shadow with the active version, and when to end
    it.
    """

    automatic: bool = True
    """End a canary or shadow that does worse than the active version. `false` only measures it."""
    min_requests: int = 20
    """Number of answers that a canary must have given before it is compared."""
    error_margin: float = 0.02
    """How far a canary's failure rate may exceed the active version's; 0.02 is 2 percentage points."""
    latency_ratio: float = 2.0
    """Maximum ratio of a canary's median times (first token, token gap) to those of the active version."""
    window_seconds: float = 600.0
    """Length in seconds of the time window whose answers are compared."""

    def __post_init__(self) -> None:
        within("rollout.min_requests", self.min_requests, 1, 4096)
        within("rollout.error_margin", self.error_margin, 0, 1)
        within("rollout.latency_ratio", self.latency_ratio, 1, 1000)
        within("rollout.window_seconds", self.window_seconds, 1, DAY)
