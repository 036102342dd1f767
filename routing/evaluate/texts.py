"""Read texts of known language and split them in two halves: one to fit weights on, one held out for
evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OWN = Path(__file__).parents[2] / "tests" / "routing" / "texts"
"""Folder of the project's own texts in a checkout."""
FITTED, KEPT_BACK = 0, 1
"""Numbers of the two halves of the texts: weights were fitted on half 0, and half 1 is held out."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text with its known language."""

    source: str
    language: str
    text: str


def half_of(text: str) -> int:
    """Return the half (0 or 1) to which a text belongs: the last bit of the first byte of its SHA-256."""
    return hashlib.sha256(text.encode()).digest()[0] & 1


def read(folder: Path, half: int | None = KEPT_BACK) -> Iterator[LabelledText]:
    """Read the texts of a half (0, 1 or None: both) from the .tsv files in `folder`, whose lines are
    `LABEL<TAB>TEXT`.
    """
    for path in sorted(folder.glob("*.tsv")):
        for language, text in read_pairs(path):
            if half is None or half_of(text) == half:
                yield LabelledText(path.stem, language, text)


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    r"""Yield (label, text) of each line, with `\n`, `\t` and `\\` unescaped in the text."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        label, tab, escaped = line.partition("\t")
        if tab:
            yield label, _unescape(escaped)


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in parts)
