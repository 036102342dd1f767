"""Requests that are built to be expensive: bodies that fill each field with as many small elements as fit,
and valid requests with the largest answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
EMBEDDINGS, TOKENIZE, DETOKENIZE = "/v1/embeddings", "/tokenize", "/detokenize"
LEGACY = "/inference/oneseek"

SAMPLING = (
    "model", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logit_bias",
    "stream", "top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "stop_token_ids",
    "metadata", "user",
)  # fmt: skip
GENERATION = (
    *SAMPLING, "max_tokens", "n", "stream_options", "prompt_logprobs", "response_format",
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "echo",
    "logprobs",
)  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {
    CHAT: (
        *GENERATION, "messages", "tools", "tool_choice", "functions", "top_logprobs", "max_completion_tokens",
        "unknown",
    ),
    COMPLETIONS: (*GENERATION, "prompt", "suffix"),
    RESPONSES: (*SAMPLING, "input", "instructions", "text", "include", "tools", "max_output_tokens"),
    EMBEDDINGS: ("input", "model", "encoding_format", "dimensions", "user"),
    TOKENIZE: ("prompt", "messages", "model", "add_special_tokens"),
    DETOKENIZE: ("tokens", "model"),
    LEGACY: ("text", "max_length", "temperature"),
}  # fmt: skip
"""Maps the path of each endpoint to the fields of its request bodies that are filled. Fields that the server
does not know are included, because it must refuse them just as quickly.
"""

ELEMENTS = {"objects": "{}", "arrays": "[]", "texts": '""', "numbers": "0", "nulls": "null"}
SAID: dict[str, Any] = {"role": "user", "content": "Hej"}
BASES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [SAID], "max_tokens": 4},
    COMPLETIONS: {"prompt": "Hej", "max_tokens": 4},
    RESPONSES: {"input": "Hej", "max_output_tokens": 4},
    EMBEDDINGS: {"input": "Hej"},
    TOKENIZE: {"prompt": "Hej"},
    DETOKENIZE: {"tokens": [5]},
    LEGACY: {"text": "Hej", "max_tokens": 4},
}


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """A request that is as expensive for the server as the server's limits allow."""

    name: str
    path: str
    body: bytes
    valid: bool = False
    """True if the request is valid, so that the server must answer it instead of refusing it."""


def filled(base: dict[str, Any], field: str, before: str, element: str, after: str, size: int) -> bytes:
    """Return the JSON object `base` as about `size` bytes, in which the value of `field` is `before`, many
    copies of `element`, and `after`.
    """
    rest = {name: value for name, value in base.items() if name != field}
    head = json.dumps(rest)[:-1] + (", " if rest else "") + f'"{field}": {before}'
    count = max(1, (size - len(head) - len(after) - 1) // (len(element) + 1))
    return f"{head}{','.join([element] * count)}{after}}}".encode()


def _keys(size: int) -> str:
    return ",".join(f'"{number:x}":0' for number in range(size // 10))


def small_elements(size: int) -> Iterator[HostileRequest]:
    """Yield, for each field of each endpoint, bodies whose value is a long array of one kind of element or an
    object with many keys.
    """
    for path, fields in FIELDS.items():
        for field in fields:
            for kind, element in ELEMENTS.items():
                body = filled(BASES[path], field, "[", element, "]", size)
                yield HostileRequest(f"{path} {field}: {kind}", path, body)
            body = filled(BASES[path], field, "{", _keys(size), "}", size)
            yield HostileRequest(f"{path} {field}: keys", path, body)


MESSAGE = '{"role":"user","content":""}'
PART = '{"type":"text","text":""}'
INPUT_PART = '{"type":"input_text","text":""}'
CALL = '{"id":"a","type":"function","function":{"name":"f","arguments":""}}'
TOOL = '{"type":"function","function":{"name":"f"}}'
SHAPES: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("messages", CHAT, "messages", "[", MESSAGE, "]"),
    ("parts", CHAT, "messages", '[{"role":"user","content":[', PART, "]}]"),
    ("parts", RESPONSES, "input", '[{"role":"user","content":[', INPUT_PART, "]}]"),
    ("calls", CHAT, "messages", '[{"role":"assistant","content":"","tool_calls":[', CALL, "]}]"),
    ("many tools", CHAT, "tools", "[", TOOL, "]"),
    ("a fat tool", CHAT, "tools", "[" + TOOL[:-2] + ',"parameters":{"enum":[', "{}", "]}}}]"),
    ("anyOf", CHAT, "guided_json", '{"anyOf":[', "{}", "]}"),
    ("anyOf", CHAT, "response_format",
     '{"type":"json_schema","json_schema":{"name":"a","schema":{"anyOf":[', "{}", "]}}}"),
    ("anyOf", RESPONSES, "text",
     '{"format":{"type":"json_schema","name":"a","schema":{"anyOf":[', "{}", "]}}}"),
    ("anyOf", CHAT, "structured_outputs", '{"json":{"anyOf":[', "{}", "]}}"),
    ("choices", CHAT, "guided_choice", "[", '"a"', "]"),
    ("a regex", CHAT, "guided_regex", '"', "a{9}", '"'),
    ("a grammar", CHAT, "guided_grammar", '"start: \\"a\\"', "\\n", '"'),
    ("a schema in a text", CHAT, "guided_json", '"{\\"anyOf\\":[', "{}", ']}"'),
    ("lists of ids", COMPLETIONS, "prompt", "[", "[1]", "]"),
    ("lists of ids", EMBEDDINGS, "input", "[", "[1]", "]"),
    ("one text", CHAT, "messages", '[{"role":"user","content":"', "hej a{[", '"}]'),
    ("one text", LEGACY, "text", '"', "hej a{[", '"'),
    ("one text", COMPLETIONS, "prompt", '"', "\\n", '"'),
    ("escapes", COMPLETIONS, "prompt", '"', "\\ud83d", '"'),
    ("deep", CHAT, "messages", "", "[", ""),
)  # fmt: skip
"""Each entry: name of the request, path, field, and the beginning, the repeated element and the end of the
field's value.
"""


def shaped(size: int) -> Iterator[HostileRequest]:
    """Yield request bodies of about `size` bytes: a field with as many elements as fit, many unknown fields,
    or the same field repeated.
    """
    for name, path, field, before, element, after in SHAPES:
        body = filled(BASES[path], field, before, element, after, size)
        yield HostileRequest(f"{path} {field}: {name}", path, body)
    for path, base in BASES.items():
        head = json.dumps(base)[:-1]
        room = size - len(head) - 2
        yield HostileRequest(f"{path}: unknown fields", path, f"{head},{_keys(room)}}}".encode())
        twice = head + ',"model":"oneseek"' * (room // 18) + "}"
        yield HostileRequest(f"{path}: one field again and again", path, twice.encode())


def valid_requests(context: int) -> Iterator[HostileRequest]:
    """Yield valid requests that are as large as allowed, or have answers as large as allowed, for a base
    whose context is `context` tokens.
    """
    ids = [100 + number % 900 for number in range(context - 8)]
    turns = [SAID if index % 2 == 0 else {"role": "assistant", "content": "Hej"} for index in range(99)]
    parts = [{"type": "text", "text": "a"}] * 200
    properties = {f"name{number}": {"type": "string"} for number in range(300)}
    schema = {"type": "object", "properties": properties}
    functions = [{"name": f"f{number}", "parameters": schema} for number in range(8)]
    tools = [{"type": "function", "function": function} for function in functions]
    stops = [chr(97 + number) * 255 + "!" for number in range(16)]
    bias = {str(token): -1 for token in range(1024)}
    chat: dict[str, Any] = {"messages": [SAID], "max_tokens": 400, "ignore_eos": True, "temperature": 1}
    bodies: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("32 prompts scored", COMPLETIONS, {"prompt": [ids] * 32, "max_tokens": 1, "prompt_logprobs": 20}),
        ("8 prompts echoed", COMPLETIONS,
         {"prompt": [ids] * 8, "max_tokens": 1, "logprobs": 20, "echo": True}),
        ("echoed in a stream", COMPLETIONS,
         {"prompt": [ids] * 8, "max_tokens": 1, "logprobs": 20, "echo": True, "stream": True}),
        ("64 prompts", COMPLETIONS, {"prompt": [ids] * 64, "max_tokens": 1}),
        ("16 scored choices", CHAT, chat | {"n": 16, "logprobs": True, "top_logprobs": 20}),
        ("16 scored streams", CHAT, chat | {"n": 16, "logprobs": True, "top_logprobs": 20, "stream": True}),
        ("scored", RESPONSES,
         {"input": "Hej", "max_output_tokens": 400, "ignore_eos": True, "top_logprobs": 20,
          "include": ["message.output_text.logprobs"]}),
        ("a scored stream", RESPONSES,
         {"input": "Hej", "max_output_tokens": 400, "ignore_eos": True, "top_logprobs": 20, "stream": True,
          "include": ["message.output_text.logprobs"]}),
        ("a long conversation", CHAT, {"messages": turns, "max_tokens": 4}),
        ("many parts", CHAT, {"messages": [{"role": "user", "content": parts}], "max_tokens": 4}),
        ("stops and biases", CHAT, chat | {"stop": stops, "logit_bias": bias, "stream": True, "n": 4}),
        ("a large schema", CHAT, {"messages": [SAID], "max_tokens": 40, "guided_json": schema}),
        ("tools", CHAT, {"messages": [SAID], "max_tokens": 40, "tools": tools, "tool_choice": "none"}),
        ("ids", DETOKENIZE, {"tokens": [number % 4000 for number in range(300_000)]}),
        ("a text of many tokens", TOKENIZE, {"prompt": "1 å " * 8000, "return_token_strs": True}),
    )  # fmt: skip
    for name, path, body in bodies:
        yield HostileRequest(f"{path}: {name}", path, json.dumps(body).encode(), valid=True)
