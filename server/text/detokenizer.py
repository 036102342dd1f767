"""Turns generated tokens into text while they arrive. Returns only complete characters, and no part of a stop
string.

The `tokenizers` library's own DecodeStream is not used. It raises an error if a stray byte follows a
character of byte-fallback tokens, which a high temperature can produce, and holds back all text after such a
byte.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from server.text.tokenizer import Tokenizer

_utf8 = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """Decodes the tokens of one answer.

    The texts that `push` and `finish` return add up to the answer's text before the first stop string. This
    is the stop string that is complete first; if several are complete at once, the longest of them. Bytes
    that are not UTF-8 become U+FFFD. If `prompt` ends with plain text, the space before the answer's first
    word is kept. After a special token, or without `prompt`, the space is dropped, as by `Tokenizer.decode`.
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
        """Add a token. Return the text that may be shown now, and the stop string that ended the answer or
        None.

        Do not call this again after a stop string was returned.
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
        """Return the text that was held back because it could have become a stop string. Call this at the end
        of the answer.
        """
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
        """Drop leading spaces, at most as many as the tokenizer's decoder drops."""
        stripped = text.lstrip(" ")
        dropped = min(self._spaces, len(text) - len(stripped))
        self._spaces = 0 if stripped else self._spaces - dropped
        return text[dropped:]


class StopSearch:
    """Searches text that arrives in parts for several stop strings at once.

    Uses one Knuth-Morris-Pratt automaton (1977) for each string. The automaton's state is the number of the
    string's first characters with which the text ends; so many characters are held back. Takes linear time.
    Raises `ValueError` for an empty string.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if "" in strings:
            raise ValueError("stop contains an empty string, which would end every text; remove it")
        # The longest first, so that of several complete at once it is found first.
        self._strings = sorted(dict.fromkeys(strings), key=len, reverse=True)
        self._firsts = frozenset(string[0] for string in self._strings)
        self._borders = [_borders(string) for string in self._strings]
        self._states = [0] * len(self._strings)
        self._held = ""

    def push(self, text: str, honour: bool) -> tuple[str, str | None]:
        """Add `text`. Return the text that can be shown, and the stop string that was found or None.

        Text is held back while it may be the beginning of a stop string. If `honour` is false, stop strings
        are ignored.
        """
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
        """Return all text that was held back, followed by `text`, at the end of the answer."""
        whole, self._held = self._held + text, ""
        return whole

    def _scan(self, index: int, text: str) -> int:
        """Feed `text` to the automaton of one stop string. Return the offset at which the string was first
        complete; 0 if it was not.
        """
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
    """Return for each length n the length of the longest proper prefix of `string[:n]` that is also its
    suffix.
    """
    borders = [0, 0]
    state = 0
    for character in string[1:]:
        while state and string[state] != character:
            state = borders[state]
        if string[state] == character:
            state += 1
        borders.append(state)
    return borders
