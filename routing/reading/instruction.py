"""Find the instruction in a message that also contains a text that the instruction is about.

The instruction may be the first or the last line: "Translate this: …" is English whatever follows, and so is
a Swedish letter with "Translate to English" below it. In a prompt template around a question, as in retrieval
chains, the instruction is the text after `Question:`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from routing.reading.names import NO_WORDS, Words, read_words, words_of

PAYLOAD_FROM, SHORTEST, LONGEST = 12, 2, 12
"""Minimum number of words of a message that has both an instruction and a text; minimum number of words of an
instruction without a known verb; and maximum number of words of any instruction.
"""
_SHORTEST_PROSE = 60
"""Minimum length in characters of a single line whose last sentence may be the instruction."""
_ASKED = re.compile(
    r"^[ \t]*(?:user |customer |new |follow[- ]?up )?(?:question|query|q|human|user|fråga|frågan|användare|"
    r"användarens fråga|spørsmål|spørgsmål|bruger|bruker|frage|kysymys|vraag)[ \t]*:[ \t]*(\S[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""Matches the line of a prompt template that holds the question, such as `Question: …`."""
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_FIRST_END = re.compile(r"\n|:\s")


def _listed(name: str) -> frozenset[str]:
    file = files("routing").joinpath("reading", "asking", f"{name}.txt")
    lines = file.read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


_VERBS, _POINTS, _QUESTIONS, _POLITE = map(_listed, ("verbs", "pointing", "questions", "polite"))


@dataclass(frozen=True, slots=True)
class Instruction:
    """The words of the instruction in a longer message."""

    words: Words
    sure: bool
    """True if a verb or a label such as `Question:` shows that the words are an instruction; False if only
    their number does.
    """


def find_instruction(text: str, limit: int) -> Instruction | None:
    """Find the instruction in `text`. Returns None if the message does not seem to hold a text that an
    instruction is about.
    """
    if "\n" not in text and ": " not in text and len(text) < _SHORTEST_PROSE:
        return None
    if asked := _asked(text, limit):
        return asked
    first, last = _first(text, limit), _last(text, limit)
    if _asks(first):
        return Instruction(first, True)
    if _asks(last):
        return Instruction(last, True)
    if ("\n" not in text and ": " not in text) or len(words_of(text[:limit])) < PAYLOAD_FROM:
        return None
    asking = text.rstrip().endswith("?")
    for words in (last, first) if asking else (first, last):
        if SHORTEST <= len(words.all) <= LONGEST:
            return Instruction(words, False)
    return None


def _asked(text: str, limit: int) -> Instruction | None:
    """Return the last question after a label such as `Question:`; None if `text` is not such a prompt
    template.
    """
    asked = _ASKED.findall(text) if "\n" in text else ()
    if not asked:
        return None
    words = read_words(asked[-1][:limit])
    return Instruction(words, True) if words else None


def _first(text: str, limit: int) -> Words:
    """Return the words before the first colon or line break; no words if `text` has neither."""
    split = _FIRST_END.search(text)
    return NO_WORDS if split is None else read_words(text[: split.start()][:limit])


def _last(text: str, limit: int) -> Words:
    """Return the words of the last line, or of the last sentence if there is only one line."""
    lines = text.rstrip().rpartition("\n")
    line = (
        lines[2]
        if lines[1]
        else (_SENTENCE.split(text[-limit:].rstrip())[-1] if len(text) >= _SHORTEST_PROSE else "")
    )
    before, colon, after = line.partition(": ")
    if colon and not after.strip():
        line = before
    return read_words(line[-limit:])


def _asks(words: Words) -> bool:
    """Return True for a short request: one that begins with a verb such as "translate", or asks about "this
    text".
    """
    if not 1 <= len(words.all) <= LONGEST:
        return False
    opening = next((word for word in words.all if word not in _POLITE), "")
    return opening in _VERBS or (opening in _QUESTIONS and not _POINTS.isdisjoint(words.all))
