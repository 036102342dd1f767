"""Split a text into words, and find names: words capitalised within a sentence, or acronyms.

A name does not show the language of a text: "Who is Håkan Hellström?" is English. German capitalises every
noun, but enough other words remain in a German text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_CAPITAL = "A-ZÀ-ÖØ-ÞĀĆČĎĐĒĖĘĚĞĢĪİĶĹĻŁŃŅŇŌŐŒŔŘŚŞŠŤŪŮŰŲŹŻŽȘȚ"
_NAME = re.compile(rf"(?<=[^\s.!?:;…>*•\"“”„«»(\[-][ \"“”„'(])(?!I\b)[{_CAPITAL}][^\W_]*(?:-[^\W_]+)*")
_CAPITALISED = re.compile(rf"\W*[{_CAPITAL}][^\W_]*(?:-[^\W_]+)*(?:\s+[{_CAPITAL}][^\W_]*(?:-[^\W_]+)*)?\W*")
_MOST_CAPITALS = 2
"""Maximum ratio of capitalised words to other words. Above it, capitalised words do not count as names,
because the writer capitalises everything.
"""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, and which of them look like names."""

    all: tuple[str, ...]
    """All words in lower case."""
    telling: tuple[str, ...]
    """The words that are not names; all words if too few are left."""
    names: tuple[str, ...] = ()
    """The words that look like names."""

    def __bool__(self) -> bool:
        return bool(self.all)


NO_WORDS = Words((), ())


def words_of(text: str) -> tuple[str, ...]:
    """Return the lower-case words of `text`. Digits, punctuation and underscores separate words."""
    return tuple(WORD.findall(text.lower().replace("’", "'")))


def read_words(text: str) -> Words:
    """Return the words of `text`, divided into names and words that show its language."""
    words = words_of(text)
    if len(words) < 2 or text.islower():
        return Words(words, words)
    named = {part for name in _NAME.findall(text) for part in words_of(name)}
    if not named:
        return Words(words, words)
    telling = tuple(word for word in words if word not in named)
    if not telling or len(words) > (_MOST_CAPITALS + 1) * len(telling):
        return Words(words, words)
    return Words(words, telling, tuple(word for word in words if word in named))


def is_name(text: str) -> bool:
    """Return True if `text` is just one or two capitalised words, such as "Göteborg?"."""
    return len(text) < 60 and _CAPITALISED.fullmatch(text) is not None
