"""Renders chat messages as a prompt, with the Jinja template that the base was trained on.

Only the template in the model's folder is ever compiled. It runs in Jinja's immutable sandbox, with the
globals that Hugging Face's templates expect. A client's text reaches the template as data, in which
spelled-out control tokens are split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adapters.datasets.content_forms import Message, in_form, probe_roles
from server.text import conversation
from server.text.tool_formats import FORMATS, JSON, PROBE_NAME, ToolFormat, find_format

Tool = Mapping[str, Any]
"""A tool as Hugging Face's templates expect it: `{"type": "function", "function": {"name", "description",
"parameters"}}`.
"""

BREAK = "\ufdd0"
"""Character inserted into a client's text to split a spelled-out control token. If the client's text itself
contains this character, it is replaced by U+FFFD.
"""
_END = "\ufdd1"
OURS = frozenset(
    {
        "messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "tokenize",
        "chat_template", "custom_tools", "builtin_tools", "conversation", "return_dict", "self",
    }
)  # fmt: skip
"""Template variables that only the server sets: a request cannot pass them as template arguments."""
NO_ARGUMENTS: Mapping[str, Any] = {}

_RESERVED = re.compile(f"[{BREAK}{_END}]")
_RESULT = "7e3a"
"""Text of a tool's result in the test conversation that shows whether a template renders calls and their
results.
"""
_LARGEST_FRAME = 1 << 20
_GROWTH = 8
"""Maximum number of characters that a template may write for each character of its input. A JSON escape
writes six characters for one.
"""


class _Generation(Extension):
    """Supports the block `{% generation %}`, which marks text for training in some templates: renders the
    block's contents.
    """

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes inside the block, as if the block's tags were not there."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateError(ValueError):
    """The base's chat template cannot render the messages of a request. The message is safe to show to a
    client.
    """


class ChatTemplate:
    """A compiled chat template of a base, with the special tokens that it may write.

    `control` lists the strings that are tokenized as control tokens; they are split wherever a client writes
    them. Messages reach the template as strings or, if the template reads only lists of parts, as lists.
    Raises `ValueError` for a template that does not compile or does not render user messages. `tool_parser`
    names the format of tool calls; by default, the format is found from the template.
    """

    def __init__(
        self,
        source: str,
        special: Mapping[str, str],
        control: Sequence[str],
        tool_parser: str | None = None,
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        names = cast(dict[str, Any], environment.globals)
        names |= {"raise_exception": _raise, "strftime_now": _now}
        try:
            self._template = environment.from_string(source)
            read = meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(
                f"the base's chat template does not compile, line {error.lineno}: {error}; "
                "correct the template in the base's folder"
            ) from error
        self.arguments = frozenset(read) - frozenset(names) - frozenset(special) - OURS
        """Template variables that a request may set: those that neither the template nor the server sets."""
        self._special = dict(special)
        self.breaker = Breaker(control)
        self._in_parts = frozenset[str]()
        self._in_parts, read = probe_roles(self._probe)
        self._takes_system = "system" in read
        self.takes_tools = self._probe_tools()
        """True if the template renders the tools of a request."""
        self._refused = conversation.refused_kinds(lambda messages: self._probe(self._placed(messages)))
        self._several_calls = not self.takes_tools or conversation.takes_several_calls(self._probe)
        self.tool_format: ToolFormat | None = None
        """The format in which the base writes tool calls; None if the format is unknown."""
        called = self._probe_call() if self.takes_tools else None
        self._takes_calls = called is not None and PROBE_NAME in called and _RESULT in called
        if tool_parser is not None:
            self.tool_format = FORMATS[tool_parser]
        elif self.takes_tools:
            self.tool_format = find_format(source, called)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: Sequence[Tool] = (),
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> str:
        """Render a conversation as a prompt. `BREAK` splits control tokens that a client spelled out.

        With `continue_final_message`, the prompt ends with the last message's text, so that the model
        continues that text. What the template does not support is rewritten: tools are described in a system
        message, tool calls and results are written as text, messages are merged as Mistral's reference
        tokenizer does, and system messages go before the first user message. `arguments` sets template
        variables; names that are not in `self.arguments` are ignored. Raises `TemplateError` if the template
        refuses even the rewritten messages.
        """
        if add_generation_prompt and continue_final_message:
            raise ValueError(
                "add_generation_prompt and continue_final_message are both true; set one of them to false"
            )
        safe: list[dict[str, Any]] = [self.breaker.apply(dict(message)) for message in messages]
        known: list[dict[str, Any]] | None = self.breaker.apply(tools) if tools else None
        safe, known = self._with_tools(safe, known)
        given = {name: self.breaker.apply(arguments[name]) for name in self.arguments & arguments.keys()}
        write = partial(
            self._write,
            tools=known,
            arguments=given,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        try:
            return write(safe, self._refused)
        except TemplateError:
            # The probes had no tools and only one unusual order each; a mixture may be refused all the same.
            if not conversation.kinds_of(safe) - self._refused:
                raise
        return write(safe, conversation.ALL_KINDS)

    def _with_tools(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Rewrite tools, tool calls and results as plain text if the template does not support them."""
        form = self.tool_format or JSON
        if tools and not self.takes_tools:
            messages, tools = conversation.with_described(messages, tools, form), None
        if not self._takes_calls:
            messages = conversation.calls_as_text(messages, form)
        elif not self._several_calls:
            messages = conversation.one_call_each(messages)
        return messages, tools

    def _write(
        self,
        messages: list[dict[str, Any]],
        refused: frozenset[str],
        *,
        tools: list[dict[str, Any]] | None,
        arguments: Mapping[str, Any],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> str:
        messages = self._placed(conversation.merged(messages, refused))
        if continue_final_message:
            return self._continue(messages, tools, arguments)
        return self._run(messages, add_generation_prompt, tools, arguments)

    def _placed(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return messages if self._takes_system else conversation.with_system_in_user(messages)

    def _continue(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        arguments: Mapping[str, Any],
    ) -> str:
        if not messages or not isinstance(messages[-1].get("content"), str):
            raise TemplateError(
                "continue_final_message needs text in the last message; add text, or set "
                "continue_final_message to false"
            )
        # If the space after `_END` is gone, the template strips messages: strip the end of the text, too.
        marked = {**messages[-1], "content": messages[-1]["content"] + _END + " "}
        text, end, rest = self._run([*messages[:-1], marked], False, tools, arguments).rpartition(_END)
        if not end:
            raise TemplateError(
                "the chat template does not render the last message, so the model cannot continue it; "
                "set continue_final_message to false"
            )
        return text if rest.startswith(" ") else text.rstrip()

    def _run(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: list[dict[str, Any]] | None = None,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> str:
        limit = _LARGEST_FRAME + _GROWTH * (_size(messages) + _size(tools) + _size(arguments))
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(
                **arguments,
                **self._special,
                messages=in_form(messages, self._in_parts) if self._in_parts else messages,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                documents=None,
            ):
                length += len(part)
                if length > limit:
                    raise TemplateError(
                        f"the chat template turns the conversation into more than {limit} characters, the "
                        "maximum; shorten the conversation"
                    )
                parts.append(part)
        except TemplateError:
            raise
        except jinja2.TemplateError as error:
            raise TemplateError(
                error.message or "the base's chat template rejects the request's messages"
            ) from error
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
            raise TemplateError(
                "the base's chat template failed on the request's messages; check their roles and contents"
            ) from error
        return "".join(parts)

    def _probe(self, messages: Sequence[Message]) -> str | None:
        """Render `messages` to find out whether the template supports them; None if it refuses them."""
        try:
            return self._run(messages, True)
        except TemplateError:
            return None

    def _probe_tools(self) -> bool:
        """Return True if the template renders the names and parameters of a request's tools."""
        parameters = {"type": "object", "properties": {"9c2b": {"type": "string"}}}
        function = {"name": PROBE_NAME, "description": "", "parameters": parameters}
        try:
            text = self._run(
                [{"role": "user", "content": "a"}], True, [{"type": "function", "function": function}]
            )
        except TemplateError:
            return False
        return PROBE_NAME in text and "9c2b" in text

    def _probe_call(self) -> str | None:
        """Render a test conversation with a tool call and its result; None if the template refuses it."""
        function = {"name": PROBE_NAME, "arguments": {"a": 1}}
        call = {"id": "a1b2c3d4e", "type": "function", "function": function}
        return self._probe(
            [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": call["id"], "name": PROBE_NAME, "content": _RESULT},
            ]
        )


class Breaker:
    """Splits control tokens that a client spells out, so that they are tokenized as ordinary letters.

    `BREAK` is inserted after the first character of each spelled-out control token, including overlapping
    ones. It is also inserted at the beginning or end of a text that could form a control token together with
    neighbouring text.
    """

    def __init__(self, control: Sequence[str]) -> None:
        tokens = sorted({token for token in control if token}, key=len, reverse=True)
        firsts = "".join(sorted({re.escape(token[0]) for token in tokens}))
        choice = "|".join(map(re.escape, tokens))
        # The class of first characters makes the search skip nearly all text without trying the tokens.
        self._inside = re.compile(f"(?=[{firsts}])(?={choice})") if tokens else None
        self._whole = re.compile(choice) if tokens else None
        self._single = [token for token in tokens if len(token) == 1]
        self._heads = tuple({token[:n] for token in tokens for n in range(1, len(token))})
        self._tails = tuple({token[n:] for token in tokens for n in range(1, len(token))})

    def apply(self, value: Any) -> Any:
        """Return a copy of `value` in which control tokens are split in every string, also inside dicts,
        lists and tuples.
        """
        if isinstance(value, str):
            return self._break(value)
        if isinstance(value, Mapping):
            return {self.apply(key): self.apply(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.apply(item) for item in value]
        return value

    def count(self, text: str) -> int:
        """Return the number of control tokens that are spelled out in `text`."""
        return 0 if self._whole is None else len(self._whole.findall(text))

    def _break(self, text: str) -> str:
        text = _RESERVED.sub("\ufffd", text)
        if self._inside is None or not text:
            return text
        for token in self._single:
            if token in text:
                raise TemplateError(f"a message contains {token!r}, a control token of this model; remove it")
        starts = [found.start() + 1 for found in self._inside.finditer(text)]
        if starts:
            borders = [0, *starts, len(text)]
            text = BREAK.join(text[a:b] for a, b in pairwise(borders))
        if text.startswith(self._tails):
            text = BREAK + text
        if text.endswith(self._heads):
            text += BREAK
        return text


def _size(value: Any) -> int:
    """Estimate the number of characters of `value` as JSON, without escapes."""
    if isinstance(value, str):
        return len(value) + 4
    if isinstance(value, Mapping):
        return 4 + sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return 4 + sum(_size(item) for item in value)
    return value.bit_length() // 3 + 8 if isinstance(value, int) else 32


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write `value` as JSON. Replaces Jinja's filter `tojson`, which would escape HTML characters."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
