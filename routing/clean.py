"""From a raw message to the words that tell its language, in time linear in a bounded length.

What is not language goes (code, addresses, identifiers), and where a message hands over a text to work
on, the instruction is kept apart from the payload: "Translate this: …" is English whatever follows.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

LIMIT = 1_200
"""Characters that are scored once the message is clean."""
HEAD, TAIL = 4, 2
"""Multiples of the limit that are cleaned of a longer message: its beginning and its end."""

_STRIPPED = (
    ("code", re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)),
    (
        "address",
        re.compile(r"(?:\b[a-z][a-z0-9+.-]{1,15}://|\bwww\.)\S+|(?<!\S)(?=[^\s@]+@[^\s@])\S+", re.IGNORECASE),
    ),
    (
        "identifier",
        re.compile(
            r"(?<!\S)(?=\S*?(?:\w[_@#\\=(]|\w::|[^\W\d]\.[^\W\d]|[^\W\d_]\d|[0-9][^\W\d_]|[a-z][A-Z]|</?\w))\S+"
        ),
    ),
)
_QUOTED = re.compile(
    r"\"[^\"\n]+\"|“[^“”\n]+”|”[^”\n]+”|„[^„“”\n]+[“”]|«[^«»\n]+»|»[^«»\n]+«|(?<!\w)'[^'\n]+'(?!\w)"
)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SEGMENT_END = re.compile(r"\n|: ")
_PAYLOAD_FROM, _SHORTEST, _LONGEST = 12, 2, 12


@dataclass(frozen=True, slots=True)
class CleanText:
    """The words of one message."""

    words: tuple[str, ...]
    """Lower-case words of the whole message, as far as `LIMIT` goes."""
    instruction: tuple[str, ...] | None
    """The words that ask for something, where the message also hands over a text to do it with."""
    stripped: tuple[str, ...]
    """Kinds of things taken out: code, address, identifier, quotation, rest (beyond the bounds)."""


def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words of `text`; a digit, a sign and an underscore end one."""
    return tuple(_WORD.findall(text.lower().replace("’", "'")))


def clean(message: str, limit: int = LIMIT) -> CleanText:
    """Take out what tells nothing of the language and find the instruction; never raises."""
    stripped: list[str] = []
    if len(message) > (HEAD + TAIL) * limit:
        message = f"{message[: HEAD * limit]}\n{message[-TAIL * limit :]}"
        stripped.append("rest")
    text = unicodedata.normalize("NFC", message.encode("utf-8", "ignore").decode("utf-8"))
    for kind, pattern in _STRIPPED:
        text, count = pattern.subn(" ", text)
        if count:
            stripped.append(kind)
    unquoted, count = _QUOTED.subn(" ", text)
    if count and len(words_of(unquoted)) >= _SHORTEST:
        text = unquoted
        stripped.append("quotation")
    text = text.strip()
    instruction = _instruction(text, limit)
    if len(text) > limit:
        text = text[:limit]
        stripped.append("rest")
    return CleanText(words_of(text), instruction, tuple(dict.fromkeys(stripped)))


def _instruction(text: str, limit: int) -> tuple[str, ...] | None:
    split = _SEGMENT_END.search(text)
    if split is None or len(words_of(text[:limit])) < _PAYLOAD_FROM:
        return None
    first = words_of(text[: split.start()][:limit])
    if _SHORTEST <= len(first) <= _LONGEST:
        return first
    last = words_of(text[text.rfind("\n") + 1 :][:limit])
    return last if _SHORTEST <= len(last) <= _LONGEST else None
