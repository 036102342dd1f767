"""Extracts from a message the words that show its language, in time linear in a bounded length.

Code, addresses, identifiers and quotations are removed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from routing.reading.code import without_code
from routing.reading.commands import may_be_command
from routing.reading.instruction import SHORTEST, Instruction, find_instruction, untagged
from routing.reading.names import Words, is_name, read_words, words_of

LIMIT = 1_200
"""Maximum number of characters that are scored after cleaning."""
HEAD, TAIL = 4, 2
"""A message longer than (HEAD + TAIL) × limit characters is shortened before cleaning: it keeps its first
HEAD × limit and its last TAIL × limit characters. The limit is that of the cleaned text, by default `LIMIT`.
"""

_FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`", re.DOTALL)
_ADDRESS = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]{1,15}://|\bwww\.)\S+|(?<!\S)(?=[^\s@]+@[^\s@])\S+", re.IGNORECASE
)
_IDENTIFIER = re.compile(
    r"(?<!\S)(?=\S*?(?:\w[_@#\\=(]|\w::|[^\W\d]\.[^\W\d]|[^\W\d_]\d|[0-9][^\W\d_]|[a-z][A-Z]|</?\w))\S+"
)
_IDENTIFYING = frozenset("_@#\\=(:<0123456789")
_CAMEL = re.compile(r"[a-z][A-Z]")
_QUOTED = re.compile(
    r"\"[^\"\n]+\"|“[^“”\n]+”|”[^”\n]+”|„[^„“”\n]+[“”]|«[^«»\n]+»|»[^«»\n]+«|(?<!\w)'[^'\n]+'(?!\w)"
)
_QUOTES = frozenset("\"“”„«»'")


@dataclass(frozen=True, slots=True)
class CleanText:
    """A message after cleaning: its words, and the instruction in it."""

    words: Words
    """Words of the whole message, from at most `LIMIT` characters after cleaning."""
    instruction: Instruction | None
    """The instruction in the message, if the message also has a text that the instruction is about; None
    otherwise.
    """
    stripped: tuple[str, ...]
    """Kinds of removed parts: code, address, identifier, quotation, and rest (text beyond the limits)."""
    name: bool
    """True if the message is just one or two capitalised words."""
    command: bool
    """True if the message may be a shell command without options, such as "npm install"."""


def clean(message: str, limit: int = LIMIT) -> CleanText:
    """Remove the parts of a message that do not show its language, such as code, and find its instruction.
    Never raises.
    """
    stripped: list[str] = []
    if len(message) > (HEAD + TAIL) * limit:
        message = f"{message[: HEAD * limit]}\n{message[-TAIL * limit :]}"
        stripped.append("rest")
    text = message
    if not text.isascii():
        text = unicodedata.normalize("NFC", message.encode("utf-8", "ignore").decode("utf-8"))
    text = _strip(untagged(text.replace("\r\n", "\n")), stripped)
    instruction = find_instruction(text, limit)
    if len(text) > limit:
        text = text[:limit]
        stripped.append("rest")
    return CleanText(
        read_words(text), instruction, tuple(dict.fromkeys(stripped)), is_name(text), may_be_command(text)
    )


def _strip(text: str, stripped: list[str]) -> str:
    """Remove the parts of `text` that do not show its language, such as code, and add their kinds to
    `stripped`.
    """
    if "`" in text or "~~~" in text:
        text, count = _FENCED.subn(" ", text)
        stripped += ["code"] * count
    text, count = without_code(text)
    stripped += ["code"] * count
    dotted = "." in text[:-1]
    if dotted or "@" in text or "://" in text:
        text, count = _ADDRESS.subn(" ", text)
        stripped += ["address"] * count
    if dotted or not _IDENTIFYING.isdisjoint(text) or _CAMEL.search(text):
        text, count = _IDENTIFIER.subn(" ", text)
        stripped += ["identifier"] * count
    if not _QUOTES.isdisjoint(text):
        unquoted, count = _QUOTED.subn(" ", text)
        if count and len(words_of(unquoted)) >= SHORTEST:
            text = unquoted
            stripped.append("quotation")
    return text.strip()
