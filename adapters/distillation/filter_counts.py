"""Count the teacher's answers that each filter dropped, and keep the first few dropped answers of each filter
as samples.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 3
_LONGEST = 300


@dataclass(slots=True)
class FilterCounts:
    """Number of answers that were asked for, kept, and dropped for each reason."""

    asked: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    shown: dict[str, list[dict[str, str]]] = field(default_factory=dict[str, list[dict[str, str]]])
    """Maps each reason for dropping answers to the first few dropped answers with their prompts."""

    def drop(self, reason: str, prompt: str, answer: str) -> None:
        """Count an answer that was dropped for `reason`, and keep it as a sample if the reason has fewer than
        3 samples.
        """
        self.dropped[reason] += 1
        met = self.shown.setdefault(reason, [])
        if len(met) < _SHOWN:
            met.append({"prompt": prompt[:_LONGEST], "answer": answer[:_LONGEST]})

    def to_json(self) -> dict[str, Any]:
        """Return the counts and sample answers as a JSON object, with the most frequent reason first."""
        reasons = self.dropped.most_common()
        return {
            "asked": self.asked,
            "kept": self.kept,
            "dropped": {name: {"count": count, "examples": self.shown[name]} for name, count in reasons},
        }
