"""Find the script (writing system) of a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

LATIN = "latin"

_RANGES = (
    ("greek", 0x0370, 0x03FF),
    ("cyrillic", 0x0400, 0x052F),
    ("armenian", 0x0530, 0x058F),
    ("hebrew", 0x0590, 0x05FF),
    ("arabic", 0x0600, 0x077F),
    ("devanagari", 0x0900, 0x097F),
    ("bengali", 0x0980, 0x09FF),
    ("gurmukhi", 0x0A00, 0x0A7F),
    ("gujarati", 0x0A80, 0x0AFF),
    ("tamil", 0x0B80, 0x0BFF),
    ("telugu", 0x0C00, 0x0C7F),
    ("kannada", 0x0C80, 0x0CFF),
    ("malayalam", 0x0D00, 0x0D7F),
    ("thai", 0x0E00, 0x0E7F),
    ("georgian", 0x10A0, 0x10FF),
    ("hangul", 0x1100, 0x11FF),
    ("greek", 0x1F00, 0x1FFF),
    ("kana", 0x3040, 0x30FF),
    ("han", 0x3400, 0x9FFF),
    ("hangul", 0xAC00, 0xD7AF),
    ("han", 0x20000, 0x3FFFF),
)
_BEFORE_GREEK = 0x0370
_LATIN_ADDITIONS = range(0x1E00, 0x1F00)

LANGUAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "greek": ("el",),
        "cyrillic": ("bg", "mk", "ru", "uk"),
        "hebrew": ("he",),
        "arabic": ("ar", "fa", "ur"),
        "devanagari": ("hi", "mr", "ne"),
        "bengali": ("bn",),
        "gurmukhi": ("pa",),
        "gujarati": ("gu",),
        "tamil": ("ta",),
        "telugu": ("te",),
        "kannada": ("kn",),
        "malayalam": ("ml",),
        "thai": ("th",),
        "hangul": ("ko",),
        "kana": ("ja",),
        "han": ("zh",),
    }
)
"""Maps each script to its languages that can be detected, by a letter profile or by the script alone."""


def script_of(language: str) -> str:
    """Return the script of `language`; Latin if the table `LANGUAGES` does not list the language."""
    return next((script for script, languages in LANGUAGES.items() if language in languages), LATIN)


def main_script(text: str) -> str:
    """Return the script of most letters in `text`; "unknown" if it is not among the known scripts.

    Japanese mixes kana with Chinese characters, so a text is Japanese if at least a tenth of its kana and
    Chinese characters are kana.
    """
    if text.isascii() or ord(max(text)) < _BEFORE_GREEK:
        return LATIN
    counts = Counter(_script(ord(letter)) for letter in text if letter.isalpha())
    if counts[LATIN] * 2 >= counts.total():
        return LATIN
    if counts["kana"] * 10 >= counts["kana"] + counts["han"] > 0:
        return "kana"
    del counts[LATIN]
    return max(counts.items(), key=lambda item: (item[1], item[0]))[0]


def _script(point: int) -> str:
    if point < _BEFORE_GREEK or point in _LATIN_ADDITIONS:
        return LATIN
    return next((name for name, first, last in _RANGES if first <= point <= last), "unknown")
