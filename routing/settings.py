"""The settings of routing. The server fills them in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

UndecidedPolicy = Literal["likeliest", "accept-language", "default", "base"]
UnsupportedPolicy = Literal["base", "default"]

OTHER = "xx"
"""The label of every language that is no candidate."""
_SAME: Mapping[str, str] = MappingProxyType({"nb": "no", "nn": "no", "iw": "he", "fil": "tl"})


def detection_code(tag: str) -> str:
    """The code that detection uses for a language tag: `sv-SE` is `sv`, `nb` and `nn` are `no`."""
    code = tag.strip().lower().replace("_", "-").partition("-")[0]
    return _SAME.get(code, code)


@dataclass(frozen=True, slots=True)
class LanguageRow:
    """One language for which there is an adapter."""

    code: str
    """ISO 639-1 code, such as `sv`; a region is ignored."""
    adapter: str
    """Alias of the adapter that answers in the language."""
    weight: float = 1.0
    """Prior weight of the language, relative to the others."""

    def __post_init__(self) -> None:
        code = detection_code(self.code)
        if not (code.isascii() and code.isalpha()) or code == OTHER:
            raise ValueError(f"languages.code is {self.code!r}: give an ISO 639-1 code such as 'sv'")
        if not self.adapter:
            raise ValueError(f"languages.adapter is empty for {self.code!r}: name an adapter's alias")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"languages.weight is {self.weight!r} for {self.code!r}: give a number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """Which languages have adapters, how sure detection has to be, and what happens if it is not."""

    languages: tuple[LanguageRow, ...] = ()
    """The languages with an adapter, each once."""
    sure: float = 0.9
    """A language is decided from this posterior probability on; below it the text is undecided."""
    threshold: float = 0.5
    """Policy `likeliest` takes an undecided text's likeliest language from this probability on."""
    undecided: UndecidedPolicy = "likeliest"
    """What an undecided text gets: its likeliest language from `threshold` on, else as `accept-language`;
    the first language of Accept-Language that has an adapter, else the default; the default; or the base."""
    unsupported: UnsupportedPolicy = "base"
    """The policy that decides who answers a text in a language without an adapter."""
    default: str | None = None
    """Alias used if nothing else decides; `base` or None is the base."""
    without_evidence: str | None = None
    """Alias used if `default` is None and neither text, system prompt nor header tells any language."""
    other_prior: float = 0.43
    """Probability, before anything is read, that a text is in no language with an adapter."""
    stay: float = 0.9
    """Probability that a user's next turn is in the language of the one before."""
    history: int = 6
    """Number of user turns that are read, including the question."""
    hint: float = 1.5
    """Factor by which Accept-Language lifts the prior of its first known language; 1 ignores it."""

    def __post_init__(self) -> None:
        codes = [detection_code(row.code) for row in self.languages]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"languages names {', '.join(twice)} more than once: give each language one row")
        _within("threshold", self.threshold, 0.0, 1.0)
        _within("sure", self.sure, self.threshold, 1.0)
        _within("other_prior", self.other_prior, 0.01, 0.99)
        _within("stay", self.stay, 0.0, 0.999)
        _within("hint", self.hint, 1.0, 10.0)
        if not 1 <= self.history <= 50:
            raise ValueError(f"history is {self.history!r}: give 1 to 50 user turns")
        if self.undecided not in get_args(UndecidedPolicy):
            raise ValueError(
                f"undecided is {self.undecided!r}: give one of {', '.join(get_args(UndecidedPolicy))}"
            )
        if self.unsupported not in get_args(UnsupportedPolicy):
            raise ValueError(
                f"unsupported is {self.unsupported!r}: give one of {', '.join(get_args(UnsupportedPolicy))}"
            )
        if self.default == "":
            raise ValueError("default is empty: name an alias, 'base', or leave it out")

    def adapter(self, language: str | None) -> str | None:
        """Alias of the adapter of `language`, if it has one."""
        return next((row.adapter for row in self.languages if detection_code(row.code) == language), None)


def _within(field: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ValueError(f"{field} is {value!r}: give a number from {lowest:g} to {highest:g}")
