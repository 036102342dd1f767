"""Limits on the size of each field of a body, checked before decoding. Fields without an entry here get small
limits.

Each limit allows every value that the endpoint accepts in the field. The limits bound the decoding time, at
about 0.1 µs per value.
"""

from __future__ import annotations

from collections.abc import Mapping

from server.api.wire.bounds import FieldBound
from server.grammar.text import MAX_BYTES

TEXT = FieldBound(containers=0, strings=1, values=2)
"""Limits of a field with a single text: only the body's maximum size limits its length."""
CONVERSATION = FieldBound(containers=32_768, strings=131_072, values=131_072)
"""Limits of a conversation: messages with content parts and tool calls."""
IDS = FieldBound(containers=4096, strings=4096, values=320_000)
"""Limits of a field with texts or token ids. OpenAI accepts 300,000 input tokens in one request."""
TOOLS = FieldBound(size=1024 * 1024, containers=16_384, strings=65_536, values=65_536)
GRAMMAR = FieldBound(size=3 * MAX_BYTES, containers=16_384, strings=32_768, values=32_768)
"""Limits of a JSON schema, including whitespace, or of another grammar."""
PAIRS = FieldBound(size=128 * 1024, containers=1, strings=4096, values=4096)
"""Limits of a field with short named values or short texts, such as `logit_bias` and `stop`."""

_GENERATION: Mapping[str, FieldBound] = {
    "logit_bias": PAIRS,
    "metadata": PAIRS,
    "stop": PAIRS,
}
_GUIDED: Mapping[str, FieldBound] = dict.fromkeys(
    (
        "response_format",
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
    ),
    GRAMMAR,
)
CHAT: Mapping[str, FieldBound] = {
    **_GENERATION, **_GUIDED, "messages": CONVERSATION, "tools": TOOLS, "functions": TOOLS,
}  # fmt: skip
COMPLETION: Mapping[str, FieldBound] = {**_GENERATION, **_GUIDED, "prompt": IDS}
RESPONSE: Mapping[str, FieldBound] = {
    **_GENERATION, "input": CONVERSATION, "instructions": TEXT, "text": GRAMMAR, "tools": TOOLS,
}  # fmt: skip
EMBEDDING: Mapping[str, FieldBound] = {"input": IDS}
TOKENIZE: Mapping[str, FieldBound] = {"prompt": TEXT, "messages": CONVERSATION, "tools": TOOLS, "tokens": IDS}
MULTI_MODEL: Mapping[str, FieldBound] = {
    "question": TEXT, "messages": CONVERSATION, "stop": PAIRS, "metadata": PAIRS,
    "logit_bias": PAIRS, "tools": TOOLS, "functions": TOOLS,
}  # fmt: skip
LEGACY: Mapping[str, FieldBound] = {"text": TEXT}
