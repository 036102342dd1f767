"""Turns tokens into text as they come: whole characters only, and nothing of a stop string.

`tokenizers`' own DecodeStream is not used: it raises where a stray byte follows a character of byte-fallback
tokens, which a warm temperature can produce, and holds all text back behind such a byte.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from server.text.tokenizer import Tokenizer

_utf8 = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """The text of one answer.

    Joined, what `push` and `finish` return is the decoded answer up to the first stop string: the one that is
    complete first, and of those complete at once the longest. Bytes that are not UTF-8 become U+FFFD.
    With `prompt`, an answer that goes on from plain text keeps the space before its first word; after a
    special token, or without `prompt`, it begins without one, as `Tokenizer.decode` has it.
    `marks`: see `Sampling.marks`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: tuple[str, ...] = (),
        min_tokens: int = 0,
        skip_special_tokens: bool = True,
        prompt: Sequence[int] = (),
        marks: Mapping[int, str] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._bytes_of = tokenizer.token_bytes
        self._marks = marks or {}
        self._forged = str.maketrans(dict.fromkeys(self._marks.values(), "\ufffd"))
        hidden = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._hidden = hidden | self._marks.keys() if self._marks else hidden
        self._decoder = _utf8("replace")
        self._stops = StopSearch(stop) if stop else None
        self._unchecked = min_tokens - 1
        self._begun = bool(prompt) and prompt[-1] not in tokenizer.special_ids
        self._spaces = 0 if self._begun else tokenizer.leading_spaces

    def push(self, token_id: int) -> tuple[str, str | None]:
        """Add a token: the text that may be shown now, and the stop string that ended it or None.

        After a stop string, push no more.
        """
        honour = self._unchecked <= 0
        self._unchecked -= 1
        if token_id in self._hidden:
            mark = self._marks.get(token_id)
            if mark is None:
                return "", None
            text = self._decoder.decode(b"", final=True) + mark
        else:
            text = self._text_of(token_id)
        if self._stops is None:
            return text, None
        return self._stops.push(text, honour)

    def finish(self) -> str:
        """What was held back, where no stop string ended the text."""
        rest = self._decoder.decode(b"", final=True)
        return rest if self._stops is None else self._stops.finish(rest)

    def _text_of(self, token_id: int) -> str:
        if self._begun:
            text = self._decoder.decode(self._bytes_of(token_id))
        else:
            self._begun = True
            text = self._decoder.decode(self._tokenizer.first_bytes(token_id))
        if self._forged:
            text = text.translate(self._forged)
        return self._strip(text) if self._spaces and text else text

    def _strip(self, text: str) -> str:
        """Drop leading spaces, at most as many as the tokenizer's decoder does."""
        stripped = text.lstrip(" ")
        dropped = min(self._spaces, len(text) - len(stripped))
        self._spaces = 0 if stripped else self._spaces - dropped
        return text[dropped:]


class StopSearch:
    """Looks for several strings at once in a text that comes in parts.

    One automaton for each string (Knuth, Morris, Pratt 1977): its state is how much of the string the text
    ends with, which is just what must be held back. Linear in the text, whatever the strings.
    Raises `ValueError` for an empty string, which every text begins with.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if "" in strings:
            raise ValueError("stop holds an empty string, which would end every text; leave it out")
        # The longest first, so that of several complete at once it is found first.
        self._strings = sorted(dict.fromkeys(strings), key=len, reverse=True)
        self._firsts = frozenset(string[0] for string in self._strings)
        self._borders = [_borders(string) for string in self._strings]
        self._states = [0] * len(self._strings)
        self._held = ""

    def push(self, text: str, honour: bool) -> tuple[str, str | None]:
        """Add `text`: what can no longer be part of a string, and the string found if `honour` allows it."""
        if not self._held and self._firsts.isdisjoint(text):
            return text, None
        whole = self._held + text
        found, first = None, len(text) + 1
        for index, string in enumerate(self._strings):
            if self._states[index] or string[0] in text:
                end = self._scan(index, text)
                if 0 < end < first:
                    found, first = string, end
        if found is not None and honour:
            shown = len(self._held) + first - len(found)
            self._held = ""
            return whole[:shown], found
        shown = len(whole) - max(self._states)
        self._held = whole[shown:]
        return whole[:shown], None

    def finish(self, text: str) -> str:
        """Everything held back, and `text` after it."""
        whole, self._held = self._held + text, ""
        return whole

    def _scan(self, index: int, text: str) -> int:
        """Move one automaton on by `text`; where its string was first complete, or 0."""
        string, borders, state = self._strings[index], self._borders[index], self._states[index]
        length = len(string)
        first = 0
        for end, character in enumerate(text, 1):
            while state and string[state] != character:
                state = borders[state]
            if string[state] == character:
                state += 1
            if state == length:
                first = first or end
                state = borders[state]
        self._states[index] = state
        return first


def _borders(string: str) -> list[int]:
    """For each length, the longest proper prefix of `string[:length]` that is also its suffix."""
    borders = [0, 0]
    state = 0
    for character in string[1:]:
        while state and string[state] != character:
            state = borders[state]
        if string[state] == character:
            state += 1
        borders.append(state)
    return borders
