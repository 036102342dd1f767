"""Parse a question to several models: its messages, and OpenAI's fields for external services."""

from __future__ import annotations

from typing import Any

from server.api.fields.multi_model import EXTERNAL_FIELDS, LOCAL_FIELDS, MultiModelFields
from server.api.parsing.messages import parse_messages
from server.errors import bad_field
from server.serving.voices.external import ExternalQuestion
from server.text.chat_template import Message

_ASKS_NOTHING: tuple[object, ...] = (None, False, 0, [])


def conversation(body: MultiModelFields) -> list[Message]:
    """The messages of a request. Raises `ApiError` unless it has either a question or messages."""
    if (body.question is None) == (body.messages is None):
        raise bad_field("question", "Send exactly one of question and messages.", code="invalid_value")
    return parse_messages(_given(body))


def external_question(body: MultiModelFields, name: str) -> ExternalQuestion:
    """The request body for the service `name`. Raises `ApiError` for fields that OpenAI does not have."""
    for field in LOCAL_FIELDS:
        if getattr(body, field) not in _ASKS_NOTHING:
            message = (
                f"{field} is not a field of OpenAI's API, so the service {name} does not support it; remove "
                f"{field}, or remove {name} from models."
            )
            raise bad_field(field, message, code="unsupported_parameter")
    fields: dict[str, Any] = {}
    for field in EXTERNAL_FIELDS:
        value = getattr(body, field)
        if value is not None and (value not in _ASKS_NOTHING or field not in _QUIET):
            fields[field] = value
    return ExternalQuestion(_given(body), fields)


_QUIET = ("stop", "presence_penalty", "frequency_penalty")
"""Fields that change nothing if they have their default value. A temperature or a seed of 0 does change the
answer.
"""


def _given(body: MultiModelFields) -> list[dict[str, Any]]:
    """The messages as the client sent them."""
    return body.messages or [{"role": "user", "content": body.question}]
