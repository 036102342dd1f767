"""A prompt that a client sent as text or as token ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompletionPrompt:
    """One prompt, as text and as tokens."""

    text: str
    tokens: tuple[int, ...]
