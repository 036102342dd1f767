"""Find the instruction in a message that also contains a text that the instruction is about.

The instruction may be the first or the last line: "Translate this: …" is English whatever follows, and so is
a Swedish letter with "Translate to English" below it. In a prompt template around a question, as in retrieval
chains, the instruction is the text after `Question:`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from routing.lists import read_list
from routing.reading.names import NO_WORDS, Words, read_words, words_of

PAYLOAD_FROM, SHORTEST, LONGEST = 12, 2, 12
"""Minimum number of words of a message that has both an instruction and a text; minimum number of words of an
instruction without a known verb; and maximum number of words of any instruction.
"""
_SHORT = 4
"""Maximum number of words of a request that only names a language, such as "på svenska tack"."""
_SHORTEST_PROSE = 60
"""Minimum length in characters of a single line whose last sentence may be the instruction."""
_LABEL = (
    r"(?:the )?(?:(?:user'?s?|customer|new|human|original|current|final|latest|follow[- ]?up) )*"
    r"(?:(question|query|q|input|fråga|frågan|användarens fråga|spørsmål|spørgsmål|frage|kysymys|vraag)"
    r"|human|user|användare|bruger|bruker)"
)
_ASKED = re.compile(
    rf"^(?:[ \t>#*]*{_LABEL}(?: is(?: as follows)?)?[ \t*]*:[ \t*]*(?:\n{{1,2}}[ \t]*(?![\w ]+:))?|"
    rf"#+[ \t]*{_LABEL}[ \t]*\n{{1,2}}[ \t]*)(\S[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
"""Matches the line of a prompt template that holds the question, such as `Question: …`, or the line below
such a label or heading. The first two groups are empty if the label names a speaker of a conversation.
"""
_TAGGED = re.compile(
    r"[<\[]((?:user|human)?[_-]?(?:question|query|input|prompt|message|request|fråga))[>\]]([^<\[]+)"
    r"[<\[]/\1[>\]]",
    re.IGNORECASE,
)
_PLAIN = str.maketrans("åäöéæøüß", "aaoeaous")
"""Letters as typed on a keyboard that lacks them."""
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_FIRST_END = re.compile(r"\n|:\s")


def _listed(name: str) -> frozenset[str]:
    words = frozenset(read_list("reading", "asking", name))
    return words.union(word.translate(_PLAIN) for word in words)


_VERBS, _POINTS, _QUESTIONS, _POLITE = map(_listed, ("verbs", "pointing", "questions", "polite"))
_LANGUAGES = _listed("languages")


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
    first, last = _first(text, limit), _last(text, limit)
    if asked := _asked(text, last, limit):
        return asked
    last_asks, asks_below = _asks(last.words), first.is_sentence and last.is_question
    if _asks(first.words) and not (first.is_sentence and (last_asks or asks_below)):
        return Instruction(first.words, True)
    if last_asks or asks_below:
        return Instruction(last.words, last_asks)
    if ("\n" not in text and ": " not in text) or len(words_of(text[:limit])) < PAYLOAD_FROM:
        return None
    last_first = last.line.endswith("?") or (first.is_sentence and not last.is_sentence)
    for part in (last, first) if last_first else (first, last):
        if SHORTEST <= len(part.words.all) <= LONGEST:
            return Instruction(part.words, False)
    return None


def untagged(text: str) -> str:
    """Replace the tags of a prompt template around a question, such as `<question>`, by the label
    `Question:`.
    """
    return _TAGGED.sub(r"\nQuestion: \2\n", text) if "</" in text or "[/" in text else text


@dataclass(frozen=True, slots=True)
class _Part:
    """The beginning or the end of a message, which may be the instruction."""

    line: str
    words: Words

    @property
    def is_sentence(self) -> bool:
        """True for a complete sentence, except a question that begins with a question word."""
        ends = (".", "!") if self.is_question else (".", "!", "?")
        return self.line.endswith(ends) and len(self.words.all) > SHORTEST

    @property
    def is_question(self) -> bool:
        """True for a short question."""
        return SHORTEST < len(self.words.all) <= LONGEST and self.words.all[0] in _QUESTIONS


def _asked(text: str, last: _Part, limit: int) -> Instruction | None:
    """Return the last question after a label such as `Question:`. Returns None if `text` is not such a prompt
    template but, for example, a pasted conversation with an instruction below it.
    """
    asked = _ASKED.findall(text) if "\n" in text else ()
    if not asked:
        return None
    label, heading, question = asked[-1]
    if not (label or heading) and not last.line.endswith(":") and _asks(last.words):
        return None
    words = read_words(question[:limit])
    return Instruction(words, True) if words else None


def _first(text: str, limit: int) -> _Part:
    """Return the text before the first colon or line break; no words if `text` has neither."""
    split = _FIRST_END.search(text)
    if split is None:
        return _Part("", NO_WORDS)
    line = text[: split.start()][:limit].rstrip()
    return _Part(line, read_words(line))


def _last(text: str, limit: int) -> _Part:
    """Return the last line, or the last sentence if there is only one line."""
    lines = text.rstrip().rpartition("\n")
    line = (
        lines[2]
        if lines[1]
        else (_SENTENCE.split(text[-limit:].rstrip())[-1] if len(text) >= _SHORTEST_PROSE else "")
    )
    line = line[-limit:].rstrip()
    return _Part(line, read_words(line))


def _asks(words: Words) -> bool:
    """Return True for a short request: one that begins with a verb such as "translate", names a language ("in
    English"), or asks about "this text".
    """
    if not 1 <= len(words.all) <= LONGEST:
        return False
    opening = next((word for word in words.all if word not in _POLITE), "")
    if opening in _VERBS or (opening in _QUESTIONS and not _POINTS.isdisjoint(words.all)):
        return True
    return len(words.all) <= _SHORT and not _LANGUAGES.isdisjoint(words.all)
