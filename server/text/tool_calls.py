"""The calls that a parser finds in an answer, reported as they come, and the objects that hold them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from server.text.incremental import MalformedError, Pull, Steps, unquoted
from server.text.tool_syntax import ID, NAME, ArgumentsDelta, CallEvent, CallStart, TextDelta

NameTest = Callable[[str], bool]
"""Whether a name is one that may be called."""


def any_name(name: str) -> bool:
    """Take every name that is well formed."""
    return NAME.fullmatch(name) is not None


class Calls:
    """What one answer holds, read from `pull`.

    White space alone before, between and after calls is left out. At most `most` calls are reported.
    """

    def __init__(self, pull: Pull, most: int | None, new_id: Callable[[], str]) -> None:
        self.count = 0
        """How many calls were reported."""
        self.events: list[CallEvent] = []
        """What was found and has not been taken."""
        self.blank: list[str] = []
        """White space of which it is not known yet whether text follows."""
        self._in = pull
        self._most = most
        self._new_id = new_id
        self._ids: set[str] = set()
        self._in_text = False

    def begin(self) -> None:
        """What looks like a call begins: white space before it stands alone."""
        self._in_text = False

    def text(self, text: str) -> None:
        """Report text that belongs to no call."""
        if not self._in_text and not text.strip():
            self.blank.append(text)
            return
        self._in_text = True
        self.events.append(TextDelta("".join([*self.blank, text])))
        self.blank.clear()

    def call(self, name: str, arguments: str, known: str = "") -> bool:
        """Report a call; whether it is to be shown."""
        self._in.held.clear()
        self.blank.clear()
        if self.count == self._most:
            return False
        if not ID.fullmatch(known) or known in self._ids:
            known = self._new_id()
        self._ids.add(known)
        self.events.append(CallStart(self.count, known, name))
        if arguments:
            self.events.append(ArgumentsDelta(self.count, arguments))
        self.count += 1
        return True

    def stream(self, name: str, known: str = "") -> Steps[None]:
        """Report a call and its arguments as they come, up to their closing brace or the next call."""
        shown = self.call(name, "", known)
        for part in self._in.object_parts():
            if part is None:
                yield
            elif shown and part:
                self.events.append(ArgumentsDelta(self.count - 1, part))

    def object(
        self,
        keys: Collection[str],
        *,
        named: NameTest = any_name,
        known: Collection[str] | None = None,
        bare: bool = False,
    ) -> Steps[None]:
        """One object with a `name` and, under one of `keys`, its arguments, in either order.

        Other keys are left out, or if `known` lists them, any that it does not is malformed. With `bare` an
        object without arguments is no call.
        """
        yield from self._in.expect("{")
        name, arguments = "", None
        while True:
            yield from self._in.space()
            key = yield from self._in.string()
            if known is not None and key not in known:
                raise MalformedError
            yield from self._in.space()
            yield from self._in.expect(":")
            yield from self._in.space()
            if key == "name" and not name:
                name = checked((yield from self._in.string()), named)
                if arguments is not None:
                    self.call(name, arguments)
            elif key in keys and arguments is None:
                arguments = yield from self._arguments(name)
            elif key == "name" or key in keys:
                raise MalformedError
            else:
                yield from self._in.value()
            yield from self._in.space()
            if (yield from self._in.peek()) != ",":
                break
            yield from self._in.take()
        yield from self._in.expect("}")
        if arguments is None and not bare:
            self.call(checked(name, named), "{}")
        elif arguments is None or not name:
            raise MalformedError
        self._in.held.clear()

    def _arguments(self, name: str) -> Steps[str]:
        """Report the arguments if `name` is known, else return them."""
        opening = yield from self._in.peek()
        if name and opening == "{":
            yield from self.stream(name)
            return ""
        text = yield from self._in.value()
        if opening == '"':
            text = unquoted(text)
        elif text == "null":
            text = "{}"
        elif opening != "{":
            raise MalformedError
        if name:
            self.call(name, text)
        return text


def checked(name: str, named: NameTest = any_name) -> str:
    """`name`, if it may be called. Raises `MalformedError`."""
    if not named(name):
        raise MalformedError
    return name
