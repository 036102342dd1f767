"""Reads the tool calls of an answer while it comes, in the formats of Mistral's models.

Up to tokenizer v7 `[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]`, from v11 on
`[TOOL_CALLS]name[ARGS]{…}` for each call, with `[CALL_ID]id` before the arguments in some (mistral-common's
instruct tokenizers). The control tokens come as `MARKS`, which no text of a model's own holds, so a model
that spells `[TOOL_CALLS]` in letters calls nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from server.text.incremental import SPACES, MalformedError, Pull, Steps, unquoted
from server.text.tool_syntax import (
    ARGS,
    CALL_ID,
    ID,
    MARKS,
    NAME,
    TOOL_CALLS,
    ArgumentsDelta,
    CallEvent,
    CallStart,
    TextDelta,
    join_text,
    new_call_id,
)

_SPELLED = {ord(mark): token for token, mark in MARKS.items()}
_LONGEST_WORD = 80
"""Characters of a name with white space around it."""


class CallReader:
    """One answer, read as it comes. The events do not depend on how its text was cut.

    A call is reported once its name is known and its arguments have begun; from there on everything up to
    the end of the arguments is theirs, be it valid JSON or cut short. What looked like a call before that
    point and is none comes back as `TextDelta`, its control tokens spelled out; nothing is lost. White space
    alone before, between and after calls is left out. With `parallel` false only the first call is reported.
    Linear in the text.
    """

    def __init__(self, *, parallel: bool = True, new_id: Callable[[], str] = new_call_id) -> None:
        self.calls = 0
        """How many calls were reported."""
        self._most = None if parallel else 1
        self._new_id = new_id
        self._ids: set[str] = set()
        self._in = Pull(MARKS[TOOL_CALLS], _SPELLED)
        self._events: list[CallEvent] = []
        self._blank: list[str] = []
        """White space of which it is not known yet whether text follows."""
        self._in_text = False
        self._reading = self._answer()

    def push(self, text: str) -> list[CallEvent]:
        """Add `text`: what is certain now."""
        return self._read(text, ended=False)

    def finish(self) -> list[CallEvent]:
        """What was held back."""
        rest = self._read("", ended=True)
        return rest if self.calls else [*rest, *map(TextDelta, filter(None, self._blank))]

    def _read(self, text: str, *, ended: bool) -> list[CallEvent]:
        self._in.feed(text, ended)
        next(self._reading, None)
        events, self._events = self._events, []
        return events if len(events) < 2 else join_text(events)

    def _answer(self) -> Steps[None]:
        while char := (yield from self._in.peek()):
            if char == MARKS[TOOL_CALLS]:
                yield from self._called()
            else:
                self._emit_text(self._in.before_stop())

    def _called(self) -> Steps[None]:
        """From a mark to the end of what it began."""
        self._in_text = False
        self._in.held.append(self._in.one())
        try:
            yield from self._in.space()
            match (yield from self._in.peek()):
                case "[":
                    yield from self._array()
                case "{":
                    yield from self._object()
                case _:
                    yield from self._named()
        except MalformedError:
            self._emit_text("".join(self._in.held))
        self._in.held.clear()

    def _array(self) -> Steps[None]:
        yield from self._in.take()
        while True:
            yield from self._in.space()
            yield from self._object()
            yield from self._in.space()
            if (yield from self._in.peek()) != ",":
                break
            yield from self._in.take()
            self._in.held.clear()
        yield from self._in.expect("]")

    def _object(self) -> Steps[None]:
        """One `{"name": …, "arguments": …}`, in either order; other keys are left out."""
        yield from self._in.expect("{")
        name, arguments = "", None
        while True:
            yield from self._in.space()
            key = yield from self._in.string()
            yield from self._in.space()
            yield from self._in.expect(":")
            yield from self._in.space()
            if key == "name" and not name:
                name = _checked((yield from self._in.string()))
                if arguments is not None:
                    self._call(name, arguments)
            elif key == "arguments" and arguments is None:
                arguments = yield from self._arguments(name)
            elif key in ("name", "arguments"):
                raise MalformedError
            else:
                yield from self._in.value()
            yield from self._in.space()
            if (yield from self._in.peek()) != ",":
                break
            yield from self._in.take()
        yield from self._in.expect("}")
        if arguments is None:
            self._call(_checked(name), "{}")
        elif not name:
            raise MalformedError
        self._in.held.clear()

    def _arguments(self, name: str) -> Steps[str]:
        """Report the arguments where `name` is known, else return them."""
        opening = yield from self._in.peek()
        if name and opening == "{":
            yield from self._stream(name)
            return ""
        text = yield from self._in.value()
        if opening == '"':
            text = unquoted(text)
        elif text == "null":
            text = "{}"
        elif opening != "{":
            raise MalformedError
        if name:
            self._call(name, text)
        return text

    def _named(self) -> Steps[None]:
        """`name[ARGS]{…}`, also without the mark, and with an id."""
        name, known = _checked((yield from self._word())), ""
        if (yield from self._in.peek()) == MARKS[CALL_ID]:
            yield from self._in.take()
            known = yield from self._word()
        if (yield from self._in.peek()) == MARKS[ARGS]:
            yield from self._in.take()
            yield from self._in.space()
        if (yield from self._in.peek()) != "{":
            raise MalformedError
        yield from self._stream(name, known)

    def _word(self) -> Steps[str]:
        """Up to a mark or a brace."""
        word = ""
        while (char := (yield from self._in.peek())) and char != "{" and char not in MARKS.values():
            word += yield from self._in.take()
            if len(word) > _LONGEST_WORD:
                raise MalformedError
        return word.strip(SPACES)

    def _stream(self, name: str, known: str = "") -> Steps[None]:
        """Report a call and its arguments as they come, up to their closing brace or the next call."""
        shown = self._call(name, "", known)
        for part in self._in.object_parts():
            if part is None:
                yield
            elif shown and part:
                self._events.append(ArgumentsDelta(self.calls - 1, part))

    def _call(self, name: str, arguments: str, known: str = "") -> bool:
        """Report a call; whether it is to be shown."""
        self._in.held.clear()
        self._blank.clear()
        if self.calls == self._most:
            return False
        if not ID.fullmatch(known) or known in self._ids:
            known = self._new_id()
        self._ids.add(known)
        self._events.append(CallStart(self.calls, known, name))
        if arguments:
            self._events.append(ArgumentsDelta(self.calls, arguments))
        self.calls += 1
        return True

    def _emit_text(self, text: str) -> None:
        if not self._in_text and not text.strip():
            self._blank.append(text)
            return
        self._in_text = True
        self._events.append(TextDelta("".join([*self._blank, text])))
        self._blank.clear()


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise MalformedError
    return name
