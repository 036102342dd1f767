"""Parses a question to several models: its messages, and the fields to send to external services."""

from __future__ import annotations

from typing import Any

from server.api.fields.multi_model import EXTERNAL_FIELDS, LOCAL_FIELDS, MultiModelFields
from server.api.parsing.messages import parse_messages
from server.errors import bad_field
from server.serving.voices.external import ExternalQuestion
from server.text.chat_template import Message

_ASKS_NOTHING: tuple[object, ...] = (None, False, 0, [])


def conversation(body: MultiModelFields) -> list[Message]:
    """Return the messages of a multi-model request. Raises `ApiError` unless the request has exactly one of
    question and messages.
    """
    if (body.question is None) == (body.messages is None):
        raise bad_field(
            "question",
            "Exactly one of question and messages must be set; set one and remove the other.",
            code="invalid_value",
        )
    return parse_messages(_given(body))


def external_question(body: MultiModelFields, name: str) -> ExternalQuestion:
    """Return the question to send to the external service `name`. Raises `ApiError` for sampling fields that
    OpenAI's API does not have.
    """
    for field in LOCAL_FIELDS:
        if getattr(body, field) not in _ASKS_NOTHING:
            raise bad_field(
                field,
                f"{field} is not a field of OpenAI's API, so the service {name} does not support it; remove "
                f"{field}, or remove {name} from models.",
                code="unsupported_parameter",
            )
    fields: dict[str, Any] = {}
    for field in EXTERNAL_FIELDS:
        value = getattr(body, field)
        if value is not None and (value not in _ASKS_NOTHING or field not in _QUIET):
            fields[field] = value
    return ExternalQuestion(_given(body), fields)


_QUIET = ("stop", "presence_penalty", "frequency_penalty")
"""Fields that are not sent to an external service if they have their default value, since it changes nothing.
Other fields are sent even if they are 0: a temperature or seed of 0 does change the answer.
"""


def _given(body: MultiModelFields) -> list[dict[str, Any]]:
    """Return the messages as the client sent them; a plain question becomes one user message."""
    return body.messages or [{"role": "user", "content": body.question}]
