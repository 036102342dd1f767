"""Collects the tool calls that a parser finds in an answer, and reads the JSON objects that contain the
calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from server.text.incremental import MalformedError, Pull, Steps, unquoted
from server.text.tool_syntax import ID, NAME, ArgumentsDelta, CallEvent, CallStart, TextDelta

NameTest = Callable[[str], bool]
"""Type of a function that returns True if a tool with the given name may be called."""


def any_name(name: str) -> bool:
    """Return True if `name` is a well-formed name of a tool, whichever tools the request has."""
    return NAME.fullmatch(name) is not None


class Calls:
    """Collects the texts and tool calls of one answer as events, while a parser reads the answer from `pull`.

    White space around calls is left out if there is no other text next to it. At most `most` calls are
    reported; None: all.
    """

    def __init__(self, pull: Pull, most: int | None, new_id: Callable[[], str]) -> None:
        self.count = 0
        """Number of tool calls reported so far."""
        self.events: list[CallEvent] = []
        """Texts and tool calls found since the caller last took the events."""
        self.blank: list[str] = []
        """White space that is reported only if other text follows it."""
        self._in = pull
        self._most = most
        self._new_id = new_id
        self._ids: set[str] = set()
        self._in_text = False

    def begin(self) -> None:
        """Record that a tool call may begin here. White space that follows is left out, unless other text
        comes after it.
        """
        self._in_text = False

    def text(self, text: str) -> None:
        """Report text of the answer that belongs to no tool call."""
        if not self._in_text and not text.strip():
            self.blank.append(text)
            return
        self._in_text = True
        self.events.append(TextDelta("".join([*self.blank, text])))
        self.blank.clear()

    def call(self, name: str, arguments: str, known: str = "") -> bool:
        """Report a tool call. Return False if the answer already has as many calls as allowed.

        `known` is the id that the model wrote for the call. An invalid or repeated id is replaced by a new
        one.
        """
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
        """Report a tool call, then its arguments as they arrive, up to their closing brace or the next
        call.
        """
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
        """Read a JSON object and report it as a tool call.

        The object has a `name`, and its arguments under one of `keys`, in either order. Other keys are
        ignored, unless `known` lists all allowed keys: then a key that is not in it raises `MalformedError`.
        If the object has no arguments, they are `{}`; with `bare`, `MalformedError` is raised.
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
        """Read the arguments of a tool call. If `name` is known already, report the call; else return the
        arguments.
        """
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
    """Return `name` if a tool of this name may be called; else raise `MalformedError`."""
    if not named(name):
        raise MalformedError
    return name
