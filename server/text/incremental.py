"""Lets a parser read text that is still arriving, and treat what it has read as plain text if it does not
match.

A parser is a generator that yields when it needs more text and calls its parts with `yield from`. Text that
was read but may not match is kept in `Pull.held`. Parsing takes linear time, whatever the lengths of the
parts that arrive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from typing import TypeVar

Value = TypeVar("Value")
Steps = Generator[None, None, Value]

SPACES = " \t\r\n"


class MalformedError(Exception):
    """The text is not what the parser expects, for example no valid tool call."""


class Pull:
    """A text that arrives in parts, with functions for a parser to read it.

    JSON values end before the character `stop`, which the parser then reads itself; an empty `stop` means
    that there is no such character. `spelled` maps the code points of marks (characters that stand for
    control tokens) to the control tokens' text.
    """

    def __init__(self, stop: str, spelled: Mapping[int, str]) -> None:
        self._stop = stop
        self._spelled = spelled
        self._text = ""
        self._at = 0
        self._ended = False
        self.held: list[str] = []
        """Text that a parser has read, and that becomes plain text of the answer if it does not match."""
        self._structure = re.compile(f'["{{}}\\[\\]{stop}]')
        self._string_end = re.compile(f'["\\\\{stop}]')
        self._scalar_end = re.compile(f"[,}}\\]{SPACES}{stop}]")

    def feed(self, text: str, ended: bool) -> None:
        """Add the next part of the text. The parser must have read the previous part completely."""
        assert self._at == len(self._text)
        self._text, self._at, self._ended = text, 0, ended

    def peek(self) -> Steps[str]:
        """Wait for the next character, and return it without reading it. Returns an empty string at the end
        of the text.
        """
        while self._at == len(self._text):
            if self._ended:
                return ""
            yield
        return self._text[self._at]

    def chunk(self, end: int | None = None) -> str:
        """Read and return the text that has arrived, up to the index `end`, without adding it to `held`."""
        text, self._at = self._text[self._at : end], len(self._text) if end is None else end
        return text if text.isascii() else text.translate(self._spelled)

    def one(self) -> str:
        """Read and return the character that `peek` has returned, without adding it to `held`."""
        return self.chunk(self._at + 1)

    def before(self, pattern: re.Pattern[str]) -> str:
        """Read and return the text that has arrived, up to the next match of `pattern`, without adding it to
        `held`.
        """
        found = pattern.search(self._text, self._at)
        return self.chunk(found and found.start())

    def take(self) -> Steps[str]:
        """Read the next character, and add it to `held`. Raises `MalformedError` at the character `stop` and
        at the end of the text.
        """
        char = yield from self.peek()
        if not char or char == self._stop:
            raise MalformedError
        self.held.append(self.one())
        return char

    def expect(self, char: str) -> Steps[None]:
        """Read the character `char`, and add it to `held`. Raises `MalformedError` if the next character is
        another one.
        """
        if (yield from self.peek()) != char:
            raise MalformedError
        yield from self.take()

    def literal(self, word: str, mark: str) -> Steps[None]:
        """Read `word`, or the character `mark` that stands for it, and add it to `held`. Raises
        `MalformedError` if other text comes next.
        """
        if (yield from self.peek()) == mark:
            yield from self.take()
            return
        for char in word:
            yield from self.expect(char)

    def space(self) -> Steps[None]:
        """Read white space, if there is any, and add it to `held`."""
        while (char := (yield from self.peek())) and char in SPACES:
            yield from self.take()

    def value(self) -> Steps[str]:
        """Read one JSON value, add it to `held`, and return its text. Checks only that brackets and quotes
        match.
        """
        begun = len(self.held)
        opening = yield from self.peek()
        if opening == '"':
            yield from self._quoted()
        elif opening in ("{", "["):
            yield from self._nested()
        else:
            yield from self._until(self._scalar_end)
        return "".join(self.held[begun:])

    def string(self) -> Steps[str]:
        """Read a JSON string, add it to `held`, and return the string's value. Raises `MalformedError` if
        other text comes next.
        """
        if (yield from self.peek()) != '"':
            raise MalformedError
        return unquoted((yield from self.value()))

    def object_parts(self) -> Generator[str | None, None, None]:
        """Yield the text of a JSON object piece by piece as it arrives, and None whenever more text is
        needed.

        Ends after the object's closing brace, before the character `stop`, or at the end of the text. Nothing
        is added to `held`.
        """
        depth, quoted = 0, False
        while True:
            while self._at == len(self._text) and not self._ended:
                yield None
            if self._at == len(self._text):
                return
            found = (self._string_end if quoted else self._structure).search(self._text, self._at)
            if found is None:
                yield self.chunk()
                continue
            char = found.group()
            yield self.chunk(found.end() - (char == self._stop))
            if char == self._stop:
                return
            if char == "\\":
                yield from self._escaped()
            elif char == '"':
                quoted = not quoted
            else:
                depth += 1 if char in "{[" else -1
                if not depth:
                    return

    def _escaped(self) -> Generator[str | None, None, None]:
        while self._at == len(self._text) and not self._ended:
            yield None
        if self._at < len(self._text) and self._text[self._at] != self._stop:
            yield self.one()

    def _nested(self) -> Steps[None]:
        depth = 0
        while True:
            if (yield from self._until(self._structure)) == '"':
                yield from self._quoted()
                continue
            depth += 1 if (yield from self.take()) in "{[" else -1
            if not depth:
                return

    def _quoted(self) -> Steps[None]:
        yield from self.expect('"')
        while (yield from self._until(self._string_end)) == "\\":
            yield from self.take()
            yield from self.take()
        yield from self.expect('"')

    def _until(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Read text up to the next match of `pattern`, add it to `held`, and return the character that
        matched.
        """
        while (yield from self.peek()):
            found = pattern.search(self._text, self._at)
            self.held.append(self.chunk(found and found.start()))
            if found is not None:
                return found.group()
        raise MalformedError


def unquoted(text: str) -> str:
    """Return the value of the JSON string `text`, which may contain raw line breaks. Raises `MalformedError`
    if it is not one.
    """
    try:
        spelled: str = json.loads(text, strict=False)
    except ValueError:
        raise MalformedError from None
    return spelled.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
