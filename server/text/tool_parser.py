"""Parses the tool calls of an answer while it is streamed, in the formats of `tool_formats`.

Mistral's format, up to tokenizer v7, is `[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]`, from v11 on
`[TOOL_CALLS]name[ARGS]{…}` for each call, with `[CALL_ID]id` before the arguments in some versions
(mistral-common's instruct tokenizers). Each control token arrives as one character of `MARKS`. If a model
spells `[TOOL_CALLS]` in letters, this is therefore not a call. Hermes' and Llama's control tokens are
ordinary text to some bases, so they are recognized in letters too.
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
"""Maximum number of characters in the name or id of a tool call, including white space around it."""
_KEYS = ("arguments", "parameters")
_BARE_KEYS = frozenset({"name", "type", "id", *_KEYS})
"""Keys that a JSON object may have to be read as a tool call although no control token comes before it."""
_ANYTHING = re.compile("(?!)")


class CallReader:
    """Parses the tool calls of one answer while its text arrives.

    The reported events do not depend on how the text was divided. A call is reported once its name is known
    and its arguments have begun. Everything up to the end of the arguments then belongs to them, even if it
    is invalid or truncated JSON. Text that turns out earlier not to be a call is reported as `TextDelta`,
    with its control tokens spelled out. White space around calls is left out if there is no other text next
    to it. If `parallel` is false, only the first call is reported. A JSON object without a control token
    before it is a call only if it names one of `tools`. Takes linear time.
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
        """Number of tool calls reported so far."""
        return self._found.count

    def push(self, text: str) -> list[CallEvent]:
        """Add `text` to the answer, and return the events (text and tool calls) that are certain now."""
        return self._read(text, ended=False)

    def finish(self) -> list[CallEvent]:
        """End the answer, and return the events of the text that was held back."""
        rest = self._read("", ended=True)
        return rest if self.calls else [*rest, *map(TextDelta, filter(None, self._found.blank))]

    def _read(self, text: str, *, ended: bool) -> list[CallEvent]:
        self._in.feed(text, ended)
        next(self._reading, None)
        events, self._found.events = self._found.events, []
        return events if len(events) < 2 else join_text(events)


def _tried(pull: Pull, found: Calls, attempt: Steps[None]) -> Steps[None]:
    """Run the parser `attempt`. If the text is not a valid tool call, report it as plain text."""
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
    """Parse what follows `[TOOL_CALLS]` in Mistral's format: an array of calls, one call, or a name with
    arguments.
    """
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
    """Parse a call `name[ARGS]{…}` in Mistral's format. `[ARGS]` may be missing, and `[CALL_ID]id` may come
    before it.
    """
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
    """Read a name or id up to a control token or a brace. Raises `MalformedError` beyond `_LONGEST_WORD`
    characters.
    """
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
    """Parse a call `<tool_call>{…}</tool_call>` in Hermes' format. Text that is no valid call is reported as
    plain text.
    """
    try:
        yield from pull.literal(CALL_OPEN, MARKS[CALL_OPEN])
    except MalformedError:
        found.text("".join(pull.held))
        pull.held.clear()
        return
    yield from _tried(pull, found, _hermes_call(pull, found))


def _hermes_call(pull: Pull, found: Calls) -> Steps[None]:
    """Parse what follows `<tool_call>` in Hermes' format. `</tool_call>` may be missing before the next
    `<tool_call>`.
    """
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
    """Parse calls in Llama's format: JSON objects separated by `;`, with or without `<|python_tag|>` before
    the first.
    """
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
    """Parse an answer that begins with a JSON array of calls. Text after the array is reported as plain
    text.
    """
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
