"""Reads a request's arguments for the chat template: `chat_template_kwargs` and the reasoning effort."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.api.fields.unknown import UnknownFields
from server.api.parsing.tool_messages import check_depth
from server.errors import ApiError, bad_field
from server.text.chat_template import OURS

FIELD = "chat_template_kwargs"
EFFORT = "reasoning_effort"
SWITCHES = ("enable_thinking", "thinking")
"""Names of the arguments with which chat templates turn reasoning on and off."""


def template_arguments(
    given: Mapping[str, Any] | None,
    readable: frozenset[str],
    unknown: UnknownFields,
    *,
    effort: str | None = None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Return the values of the arguments that the chat template reads, whose names are in `readable`.

    Other names are passed to `unknown`. `effort` is ignored on a base without reasoning. On other bases it is
    passed to the template, and "none" turns reasoning off. Raises `ApiError` (400) for names that only the
    server sets, and for a reasoning `budget`, which is not supported.
    """
    arguments: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name in OURS:
            raise _refused(f"{FIELD}.{name}", "only the server sets this template argument; remove the field")
        if name not in readable:
            unknown.meet(name, readable, FIELD)
            continue
        check_depth(value, f"{FIELD}.{name}")
        arguments[name] = value
    if effort is not None and EFFORT in readable:
        arguments.setdefault(EFFORT, effort)
    if effort == "none":
        arguments = {name: False for name in SWITCHES if name in readable} | arguments
    if budget is not None and readable.intersection((EFFORT, *SWITCHES)):
        raise _refused(
            "thinking_token_budget",
            "a token budget for reasoning is not supported; limit the answer with max_tokens",
        )
    return arguments


def _refused(field: str, reason: str) -> ApiError:
    return bad_field(field, f"{field}: {reason}.", code="unsupported_parameter")
