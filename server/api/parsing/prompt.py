"""A prompt that a client sent as text or as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, slots=True)
class CompletionPrompt:
    """One prompt, as text and as tokens."""

    text: str
    tokens: tuple[int, ...]
    """Empty until a text is tokenised."""


def count_places(value: Mapping[str, object], prompts: str) -> int:
    """Places that a body asks for before its fields are checked: `n` for each of what `prompts` holds."""
    n, listed = value.get("n"), value.get(prompts)
    choices = n if type(n) is int and n > 0 else 1
    if not isinstance(listed, list) or not listed:
        return choices
    several = cast("list[object]", listed)
    return choices * (1 if type(several[0]) is int else len(several))
