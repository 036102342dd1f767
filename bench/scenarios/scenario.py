"""The definition of a scenario: languages, adapters, lengths of prompts and answers, and changes during the
run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.text.prompts import LengthSpread

Event = Literal["", "swap", "churn"]
"""Changes during the run: `swap` exchanges one adapter for another version, `churn` loads and unloads
adapters.
"""

SHORT = LengthSpread(median=24, sigma=0.6, least=8, most=200)
"""Number of words in an ordinary prompt."""
LONG = LengthSpread(median=900, sigma=0.3, least=400, most=1800)
"""Number of words in a long prompt."""
ANSWER = LengthSpread(median=48, sigma=0.5, least=8, most=192)
"""Number of tokens in an answer."""


@dataclass(frozen=True, slots=True)
class ServingScenario:
    """One scenario. All shares are shares of the requests."""

    name: str
    says: str
    languages: tuple[tuple[str, float], ...] = (("en", 0.5), ("sv", 0.5))
    """Maps each language of the prompt to the share of the requests."""
    target: Literal["language", "base", "adapters"] = "language"
    """Which model a request names: the adapter of the prompt's language, the base, or `adapters` by
    popularity.
    """
    adapters: int = 0
    """Number of adapters that the server must have besides the base."""
    slots: int = 0
    """Number of adapters that a started server holds in memory at once. 0: all of them."""
    zipf: float = 0.0
    """Exponent of the adapters' popularity: the k-th is requested in proportion to 1 / k^zipf."""
    prompt: LengthSpread = SHORT
    long_share: float = 0.0
    """Share of the prompts that have `LONG` words."""
    answer: LengthSpread = ANSWER
    turns: int = 1
    """Number of turns in a conversation, whose history grows."""
    cancelled: float = 0.0
    """Share of the requests whose client disconnects in the middle of the answer."""
    structured: bool = False
    """True if answers must be JSON objects that match a schema."""
    plain: bool = False
    """True if the server must have no adapters. OneSeek detects the language of each prompt all the same."""
    voices: int = 0
    """Number of voices that answer each question together, through OneSeek's endpoint. 0: a single model
    answers.
    """
    event: Event = ""

    def __post_init__(self) -> None:
        if abs(sum(share for _, share in self.languages) - 1) > 1e-9:
            raise ValueError(f"scenario {self.name!r}: the shares of its languages must add up to 1")
        if self.target == "adapters" and self.adapters < 1:
            raise ValueError(f"scenario {self.name!r}: adapters is 0; use at least 1")

    @property
    def needs(self) -> str:
        """Describe what a server needs for this scenario. Empty if any server will do."""
        if self.voices:
            return "OneSeek"
        if self.plain:
            return "a server without adapters"
        if self.event:
            return f"an admin key and {'two versions' if self.event == 'swap' else 'a folder'} of an adapter"
        if self.target == "adapters":
            return f"{self.adapters:,} adapters"
        return "" if self.target == "base" else "an adapter for each language"
