"""Reads the tool calls of an answer while it comes, in the formats of `tool_formats`.

Mistral's, up to tokenizer v7, is `[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]`, from v11 on
`[TOOL_CALLS]name[ARGS]{…}` for each call, with `[CALL_ID]id` before the arguments in some (mistral-common's
instruct tokenizers). Control tokens come as `MARKS`, which no text of a model's own holds, so a model that
spells `[TOOL_CALLS]` in letters calls nothing. Hermes' and Llama's marks are ordinary text to some bases, and
are read in letters too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from server.text.incremental import SPACES, MalformedError, Pull, Steps
from server.text.tool_calls import Calls, any_name, checked
from server.text.tool_formats import HERMES, JSON, LLAMA3, MISTRAL, ToolFormat
from server.text.tool_syntax import (
    ARGS,
    CALL_CLOSE,
    CALL_ID,
    CALL_OPEN,
    MARKS,
    PYTHON_TAG,
    TOOL_CALLS,
    CallEvent,
    TextDelta,
    join_text,
    new_call_id,
)

_SPELLED = {ord(mark): token for token, mark in MARKS.items()}
_LONGEST_WORD = 80
"""Characters of a name with white space around it."""
_KEYS = ("arguments", "parameters")
_BARE_KEYS = frozenset({"name", "type", "id", *_KEYS})
"""Keys of a call that nothing marks as one."""
_ANYTHING = re.compile("(?!)")


class CallReader:
    """One answer, read as it comes. The events do not depend on how its text was cut.

    A call is reported once its name is known and its arguments have begun; from there on everything up to
    the end of the arguments is theirs, be it valid JSON or cut short. What looked like a call before that
    point and is none comes back as `TextDelta`, its control tokens spelled out; nothing is lost. White space
    alone before, between and after calls is left out. With `parallel` false only the first call is reported.
    A call that nothing marks (a bare object) must be of one of the `tools`. Linear in the text.
    """

    def __init__(
        self,
        tool_format: ToolFormat = MISTRAL,
        tools: Collection[str] = (),
        *,
        parallel: bool = True,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._in = Pull(MARKS[TOOL_CALLS] if tool_format is MISTRAL else "", _SPELLED)
        self._found = Calls(self._in, None if parallel else 1, new_id)
        self._reading = _ANSWERS[tool_format.name](self._in, self._found, frozenset(tools))

    @property
    def calls(self) -> int:
        """How many calls were reported."""
        return self._found.count

    def push(self, text: str) -> list[CallEvent]:
        """Add `text`: what is certain now."""
        return self._read(text, ended=False)

    def finish(self) -> list[CallEvent]:
        """What was held back."""
        rest = self._read("", ended=True)
        return rest if self.calls else [*rest, *map(TextDelta, filter(None, self._found.blank))]

    def _read(self, text: str, *, ended: bool) -> list[CallEvent]:
        self._in.feed(text, ended)
        next(self._reading, None)
        events, self._found.events = self._found.events, []
        return events if len(events) < 2 else join_text(events)


def _tried(pull: Pull, found: Calls, attempt: Steps[None]) -> Steps[None]:
    """What `attempt` reads, as text if that is malformed."""
    found.begin()
    try:
        yield from attempt
    except MalformedError:
        found.text("".join(pull.held))
    pull.held.clear()


def _mistral(pull: Pull, found: Calls, tools: frozenset[str]) -> Steps[None]:
    del tools
    begin = re.compile(MARKS[TOOL_CALLS])
    while char := (yield from pull.peek()):
        if char == MARKS[TOOL_CALLS]:
            pull.held.append(pull.one())
            yield from _tried(pull, found, _mistral_calls(pull, found))
        else:
            found.text(pull.before(begin))


def _mistral_calls(pull: Pull, found: Calls) -> Steps[None]:
    """From a mark to the end of what it began."""
    yield from pull.space()
    match (yield from pull.peek()):
        case "[":
            yield from _array(pull, found, ("arguments",))
        case "{":
            yield from found.object(("arguments",))
        case _:
            yield from _named(pull, found)


def _array(pull: Pull, found: Calls, keys: Collection[str]) -> Steps[None]:
    yield from pull.take()
    while True:
        yield from pull.space()
        yield from found.object(keys)
        yield from pull.space()
        if (yield from pull.peek()) != ",":
            break
        yield from pull.take()
        pull.held.clear()
    yield from pull.expect("]")


def _named(pull: Pull, found: Calls) -> Steps[None]:
    """`name[ARGS]{…}`, also without the mark, and with an id."""
    name, known = checked((yield from _word(pull))), ""
    if (yield from pull.peek()) == MARKS[CALL_ID]:
        yield from pull.take()
        known = yield from _word(pull)
    if (yield from pull.peek()) == MARKS[ARGS]:
        yield from pull.take()
        yield from pull.space()
    if (yield from pull.peek()) != "{":
        raise MalformedError
    yield from found.stream(name, known)


def _word(pull: Pull) -> Steps[str]:
    """Up to a mark or a brace."""
    word = ""
    while (char := (yield from pull.peek())) and char != "{" and char not in MARKS.values():
        word += yield from pull.take()
        if len(word) > _LONGEST_WORD:
            raise MalformedError
    return word.strip(SPACES)


def _hermes(pull: Pull, found: Calls, tools: frozenset[str]) -> Steps[None]:
    del tools
    begin = re.compile(f"[<{MARKS[CALL_OPEN]}]")
    while char := (yield from pull.peek()):
        if char in ("<", MARKS[CALL_OPEN]):
            yield from _marked(pull, found)
        else:
            found.text(pull.before(begin))


def _marked(pull: Pull, found: Calls) -> Steps[None]:
    """`<tool_call>{…}</tool_call>`, or the text that only began as that."""
    try:
        yield from pull.literal(CALL_OPEN, MARKS[CALL_OPEN])
    except MalformedError:
        found.text("".join(pull.held))
        pull.held.clear()
        return
    yield from _tried(pull, found, _hermes_call(pull, found))


def _hermes_call(pull: Pull, found: Calls) -> Steps[None]:
    """After `<tool_call>`: an object and its end, which a model may leave out before the next one."""
    while True:
        yield from pull.space()
        yield from found.object(_KEYS)
        yield from pull.space()
        match (yield from pull.peek()):
            case "<":
                yield from pull.take()
                closing = (yield from pull.peek()) == "/"
                for char in (CALL_CLOSE if closing else CALL_OPEN)[1:]:
                    yield from pull.expect(char)
                if closing:
                    return
            case char if char == MARKS[CALL_OPEN]:
                yield from pull.take()
            case char:
                if char == MARKS[CALL_CLOSE]:
                    yield from pull.take()
                return


def _llama3(pull: Pull, found: Calls, tools: frozenset[str]) -> Steps[None]:
    begin = re.compile(f"[<{{{MARKS[PYTHON_TAG]}]")
    while char := (yield from pull.peek()):
        if char in ("<", "{", MARKS[PYTHON_TAG]):
            yield from _tried(pull, found, _llama3_calls(pull, found, tools))
        else:
            found.text(pull.before(begin))


def _llama3_calls(pull: Pull, found: Calls, tools: frozenset[str]) -> Steps[None]:
    """Calls with `;` between them, the first after a tag or alone."""
    tagged = (yield from pull.peek()) != "{"
    if tagged:
        yield from pull.literal(PYTHON_TAG, MARKS[PYTHON_TAG])
        yield from pull.space()
    while True:
        named = any_name if tagged else tools.__contains__
        yield from found.object(_KEYS, named=named, known=None if tagged else _BARE_KEYS, bare=not tagged)
        yield from pull.space()
        if (yield from pull.peek()) != ";":
            break
        yield from pull.take()
        yield from pull.space()
        if (yield from pull.peek()) != "{":
            break
    if (yield from pull.peek()):  # what was held after the last call is text if more follows
        found.text("".join(pull.held))


def _json(pull: Pull, found: Calls, tools: frozenset[str]) -> Steps[None]:
    """An answer that is an array of calls from its beginning on."""
    del tools
    yield from pull.space()
    if (yield from pull.peek()) == "[":
        yield from _tried(pull, found, _array(pull, found, _KEYS))
    else:
        found.text("".join(pull.held))
        pull.held.clear()
    while (yield from pull.peek()):
        found.text(pull.before(_ANYTHING))


_ANSWERS: dict[str, Callable[[Pull, Calls, frozenset[str]], Steps[None]]] = {
    MISTRAL.name: _mistral,
    HERMES.name: _hermes,
    LLAMA3.name: _llama3,
    JSON.name: _json,
}
