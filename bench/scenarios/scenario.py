"""The definition of a scenario: languages, adapters, lengths of prompts and answers, and adapter changes
during the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.text.prompts import LengthSpread

Event = Literal["", "swap", "churn"]
"""Adapter changes during the run: `swap` exchanges an adapter for another version, `churn` loads and unloads
adapters.
"""

SHORT = LengthSpread(median=24, sigma=0.6, least=8, most=200)
"""Distribution of the number of words in an ordinary prompt."""
LONG = LengthSpread(median=900, sigma=0.3, least=400, most=1800)
"""Distribution of the number of words in a long prompt."""
ANSWER = LengthSpread(median=48, sigma=0.5, least=8, most=192)
"""Distribution of the number of tokens in an answer."""


@dataclass(frozen=True, slots=True)
class ServingScenario:
    """A scenario of a benchmark: what its requests ask for, and what the server must have. All shares are
    fractions of the requests.
    """

    name: str
    says: str
    languages: tuple[tuple[str, float], ...] = (("en", 0.5), ("sv", 0.5))
    """Pairs of a prompt language and its share of the requests."""
    target: Literal["language", "base", "adapters"] = "language"
    """Which model a request names: `language` for the adapter of the prompt's language, `base` for the base,
    or `adapters` for adapters by their popularity.
    """
    adapters: int = 0
    """Minimum number of adapters that the server must have."""
    slots: int = 0
    """Number of adapters that the server holds in memory at once, if the benchmark starts it. 0: all
    adapters.
    """
    zipf: float = 0.0
    """Zipf exponent of the adapters' popularity: the k-th most popular gets requests in proportion to 1 /
    k^zipf.
    """
    prompt: LengthSpread = SHORT
    long_share: float = 0.0
    """Share of the prompts that are long, with the length distribution `LONG`."""
    answer: LengthSpread = ANSWER
    turns: int = 1
    """Number of turns in a conversation. Each request contains all earlier turns."""
    cancelled: float = 0.0
    """Share of the requests whose client disconnects in the middle of the answer."""
    structured: bool = False
    """True if answers must be JSON objects that match a schema."""
    plain: bool = False
    """True if the server must have no adapters. OneSeek still detects the language of each prompt."""
    voices: int = 0
    """Number of models that answer each question together, through an endpoint that only OneSeek has. 0: each
    question goes to one model.
    """
    event: Event = ""

    def __post_init__(self) -> None:
        if abs(sum(share for _, share in self.languages) - 1) > 1e-9:
            raise ValueError(f"the shares of the languages of the scenario {self.name!r} must add up to 1")
        if self.target == "adapters" and self.adapters < 1:
            raise ValueError(
                f"the scenario {self.name!r} targets adapters but has 0 of them; set adapters to at least 1"
            )

    @property
    def needs(self) -> str:
        """What a server must have or allow for this scenario, as text. Empty if any server will do."""
        if self.voices:
            return "OneSeek"
        if self.plain:
            return "a server without adapters"
        if self.event:
            return f"an admin key and {'two versions' if self.event == 'swap' else 'a folder'} of an adapter"
        if self.target == "adapters":
            return f"{self.adapters:,} adapters"
        return "" if self.target == "base" else "an adapter for each language"
