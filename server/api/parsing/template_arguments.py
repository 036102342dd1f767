"""What a request tells the base's chat template: `chat_template_kwargs` and the effort of its reasoning."""

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
"""Names by which templates turn the reasoning of their base on and off."""


def template_arguments(
    given: Mapping[str, Any] | None,
    readable: frozenset[str],
    unknown: UnknownFields,
    *,
    effort: str | None = None,
    budget: int | None = None,
) -> dict[str, Any]:
    """Values for names in `readable`, those that the template reads.

    A name that it does not read goes to `unknown`. `effort` is ignored on a base that does not reason; on
    others it is what the template reads, and "none" turns a switch off. Raises `ApiError` (400) for names
    that only the server sets, and for a `budget` of reasoning, which no base here keeps to.
    """
    arguments: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name in OURS:
            raise _refused(f"{FIELD}.{name}", "the server sets it; leave it out")
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
        raise _refused("thinking_token_budget", "reasoning has no budget; use max_tokens")
    return arguments


def _refused(field: str, reason: str) -> ApiError:
    return bad_field(field, f"{field}: {reason}.", code="unsupported_parameter")
