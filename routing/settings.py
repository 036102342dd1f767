"""The settings of routing, which the server makes from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

UndecidedPolicy = Literal["likeliest", "accept-language", "default", "base"]
UnsupportedPolicy = Literal["base", "default"]

OTHER = "xx"
"""The label of every language that is not a candidate of the detection."""
_SAME: Mapping[str, str] = MappingProxyType({"nb": "no", "nn": "no", "iw": "he", "fil": "tl"})


def detection_code(tag: str) -> str:
    """Return the language code that detection uses for a language tag: `sv` for `sv-SE`, `no` for `nb` and
    `nn`.
    """
    code = tag.strip().lower().replace("_", "-").partition("-")[0]
    return _SAME.get(code, code)


@dataclass(frozen=True, slots=True)
class LanguageRow:
    """One language for which there is an adapter."""

    code: str
    """ISO 639-1 code, such as `sv`; a region, as in `sv-SE`, is ignored."""
    adapter: str
    """Alias of the adapter that answers in the language."""
    weight: float = 1.0
    """Prior weight of the language in detection, relative to the other languages with adapters."""

    def __post_init__(self) -> None:
        code = detection_code(self.code)
        if not (code.isascii() and code.isalpha()) or code == OTHER:
            raise ValueError(
                f"the code of a routing language is {self.code!r}: give an ISO 639-1 code such as 'sv'"
            )
        if not self.adapter:
            raise ValueError(
                f"the routing language {self.code!r} has an empty adapter: name an adapter's alias"
            )
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(
                f"the weight {self.weight!r} of the routing language {self.code!r} is invalid: "
                "give a number above 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """Which languages have adapters, how sure detection must be, and which adapter is used if it is less
    sure.
    """

    languages: tuple[LanguageRow, ...] = ()
    """The languages that have an adapter; each language appears once."""
    sure: float = 0.9
    """Minimum posterior probability of a decided language; below it, the text's language is undecided."""
    threshold: float = 0.5
    """Minimum probability at which the policy `likeliest` uses the likeliest language of an
    undecided text.
    """
    undecided: UndecidedPolicy = "likeliest"
    """Policy for a text whose language is undecided.

    `likeliest`: the likeliest language if its probability is at least `threshold`, else as `accept-language`.
    `accept-language`: the language of the system prompt or of the header Accept-Language, else the default.
    `default`: the default. `base`: the base.
    """
    unsupported: UnsupportedPolicy = "base"
    """Policy for a text in a language without an adapter: answer with the base, or with the adapter in
    `default`.
    """
    default: str | None = None
    """Alias of the adapter that answers if nothing else decides. `base` or None means the base."""
    without_evidence: str | None = None
    """Alias used if `default` is None and neither the text, the system prompt nor Accept-Language shows a
    language.
    """
    other_prior: float = 0.5
    """Prior probability that a text is in a language without an adapter."""
    stay: float = 0.9
    """Probability that a user's next message is in the language of the message before."""
    history: int = 6
    """Number of the latest user messages that are read, including the question."""
    hint: float = 1.5
    """Factor by which Accept-Language multiplies the prior of its first known language; 1
    ignores the header.
    """

    def __post_init__(self) -> None:
        codes = [detection_code(row.code) for row in self.languages]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(
                f"the routing languages include {', '.join(twice)} more than once: list each language once"
            )
        _within("threshold", self.threshold, 0.0, 1.0)
        _within("sure", self.sure, self.threshold, 1.0)
        _within("other_prior", self.other_prior, 0.01, 0.99)
        _within("stay", self.stay, 0.0, 0.999)
        _within("hint", self.hint, 1.0, 10.0)
        if not 1 <= self.history <= 50:
            raise ValueError(f"the routing setting history is {self.history!r}: give 1 to 50 user messages")
        if self.undecided not in get_args(UndecidedPolicy):
            raise ValueError(
                f"the routing setting undecided is {self.undecided!r}: "
                f"give one of {', '.join(get_args(UndecidedPolicy))}"
            )
        if self.unsupported not in get_args(UnsupportedPolicy):
            raise ValueError(
                f"the routing setting unsupported is {self.unsupported!r}: "
                f"give one of {', '.join(get_args(UnsupportedPolicy))}"
            )
        if self.default == "":
            raise ValueError(
                "the routing setting default is empty: name an adapter's alias or 'base', or leave it out"
            )

    def adapter(self, language: str | None) -> str | None:
        """Return the alias of the adapter for `language`; None if the language has no adapter."""
        return next((row.adapter for row in self.languages if detection_code(row.code) == language), None)


def _within(field: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ValueError(
            f"the routing setting {field} is {value!r}: give a number from {lowest:g} to {highest:g}"
        )
