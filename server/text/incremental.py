"""Lets a parser pull its text while that is still coming, and give back what it took.

A parser is a generator: it yields where it needs more text, and each of its parts is called with
`yield from`. What is read is held until the parser is certain of it. Linear, however the text is cut.
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
    """The text is not what the parser expects."""


class Pull:
    """A text that comes in parts. `stop` is a character that nothing but the parser itself may take, if any.

    `spelled` maps characters (as `str.translate` does) to what is shown for them.
    """

    def __init__(self, stop: str, spelled: Mapping[int, str]) -> None:
        self._stop = stop
        self._spelled = spelled
        self._text = ""
        self._at = 0
        self._ended = False
        self.held: list[str] = []
        """What was read and is not certain yet."""
        self._structure = re.compile(f'["{{}}\\[\\]{stop}]')
        self._string_end = re.compile(f'["\\\\{stop}]')
        self._scalar_end = re.compile(f"[,}}\\]{SPACES}{stop}]")

    def feed(self, text: str, ended: bool) -> None:
        """The next part. The one before must have been read to its end."""
        assert self._at == len(self._text)
        self._text, self._at, self._ended = text, 0, ended

    def peek(self) -> Steps[str]:
        """The next character, once there is one; empty at the end."""
        while self._at == len(self._text):
            if self._ended:
                return ""
            yield
        return self._text[self._at]

    def chunk(self, end: int | None = None) -> str:
        """What there is up to `end`; it is read and not held."""
        text, self._at = self._text[self._at : end], len(self._text) if end is None else end
        return text if text.isascii() else text.translate(self._spelled)

    def one(self) -> str:
        """The character that was seen last; it is read and not held."""
        return self.chunk(self._at + 1)

    def before(self, pattern: re.Pattern[str]) -> str:
        """What there is before the next match; it is read and not held."""
        found = pattern.search(self._text, self._at)
        return self.chunk(found and found.start())

    def take(self) -> Steps[str]:
        """Hold the next character."""
        char = yield from self.peek()
        if not char or char == self._stop:
            raise MalformedError
        self.held.append(self.one())
        return char

    def expect(self, char: str) -> Steps[None]:
        """Hold `char`, which must come next."""
        if (yield from self.peek()) != char:
            raise MalformedError
        yield from self.take()

    def literal(self, word: str, mark: str) -> Steps[None]:
        """Hold `word`, spelled out or as the `mark` that stands for it, which must come next."""
        if (yield from self.peek()) == mark:
            yield from self.take()
            return
        for char in word:
            yield from self.expect(char)

    def space(self) -> Steps[None]:
        """Hold white space, if there is any."""
        while (char := (yield from self.peek())) and char in SPACES:
            yield from self.take()

    def value(self) -> Steps[str]:
        """Hold one JSON value of any kind, as it is written. Only brackets and quotes are checked."""
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
        """Hold a JSON string; what it spells."""
        if (yield from self.peek()) != '"':
            raise MalformedError
        return unquoted((yield from self.value()))

    def object_parts(self) -> Generator[str | None, None, None]:
        """The pieces of a JSON object as they come: None where more text is needed. Reads and does not hold.

        Ends after the closing brace, before a `stop`, and where the text does.
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
        """Hold text up to the next match, which is not taken; the character there."""
        while (yield from self.peek()):
            found = pattern.search(self._text, self._at)
            self.held.append(self.chunk(found and found.start()))
            if found is not None:
                return found.group()
        raise MalformedError


def unquoted(text: str) -> str:
    """What a JSON string spells; line breaks in it are allowed. Raises `MalformedError`."""
    try:
        spelled: str = json.loads(text, strict=False)
    except ValueError:
        raise MalformedError from None
    return spelled.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
