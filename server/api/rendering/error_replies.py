"""The one place that turns an exception into OpenAI's error shape, by its type.

Messages name the field, the value and the remedy; they never hold a path, an address or a stack of the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from adapters.registry.served import UnknownAdapterError
from routing.route import UnknownNameError
from routing.selection import SelectionError
from server.errors import (
    CONTEXT_EXCEEDED,
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    ApiError,
    BaseNotLoadedError,
    BaseUnavailableError,
    ContextExceededError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    ErrorReply,
    UnreadAnswerError,
    UnsupportedRequestError,
)
from server.text.tokenizer import TemplateError

NOT_READY_RETRY = 5
"""Seconds that a client is asked to wait while the engine is not ready."""
EXCHANGE_RETRY = 1
"""The same while an adapter is unloaded and loaded."""
SLOTS_RETRY = 5
"""The same while requests use every slot for adapters."""


def reply_for(error: Exception) -> ErrorReply:
    """What a client is told about `error`: by the nearest type in the table, else a plain 500."""
    for kind in type(error).__mro__:
        render = _REPLIES.get(kind)
        if render is not None:
            return render(error)
    return _INTERNAL


_INTERNAL = ErrorReply(500, "The server failed at this request.", type="server_error", code="internal_error")


def _busy(error: EngineBusyError) -> ErrorReply:
    seconds = max(1, math.ceil(error.retry_after))
    headers = {"Retry-After": str(seconds)}
    if error.places is not None:
        headers["x-ratelimit-limit-requests"] = str(error.places)
        headers["x-ratelimit-remaining-requests"] = "0"
        headers["x-ratelimit-reset-requests"] = f"{seconds}s"
    if error.unread:
        headers["Connection"] = "close"
    return ErrorReply(429, str(error), type="rate_limit_error", code="queue_full", headers=headers)


def _dead(error: EngineDeadError) -> ErrorReply:
    headers = {"Retry-After": str(NOT_READY_RETRY)}
    return ErrorReply(503, str(error), type="server_error", code="engine_dead", headers=headers)


def _refused(_error: AdapterRefusedError) -> ErrorReply:
    # Why the engine refuses it may name files of the host; that is in the log.
    return _unavailable("the engine refuses it, and the server's log says why")


def _unavailable(error: AdapterUnavailableError | str) -> ErrorReply:
    """A name that is known and cannot be served until somebody repairs it."""
    message = f"This adapter cannot be served: {str(error).rstrip('.')}."
    headers = {"x-should-retry": "false"}
    return ErrorReply(
        503, message, type="server_error", param="model", code="adapter_unavailable", headers=headers
    )


def _not_loaded(_error: AdapterNotLoadedError) -> ErrorReply:
    message = "This adapter is being exchanged; ask again in a moment."
    headers = {"Retry-After": str(EXCHANGE_RETRY)}
    return ErrorReply(503, message, type="server_error", code="adapter_not_loaded", headers=headers)


def _slots_full(_error: AdaptersBusyError) -> ErrorReply:
    message = "Requests use every slot that this server has for adapters. Ask again in a few seconds."
    headers = {"Retry-After": str(SLOTS_RETRY)}
    return ErrorReply(503, message, type="server_error", code="adapter_slots_full", headers=headers)


def _base_not_loaded(error: BaseNotLoadedError) -> ErrorReply:
    wait = max(1, math.ceil(error.retry_after))
    headers = {"Retry-After": str(wait)}
    failed = isinstance(error, BaseUnavailableError)
    code = "base_unavailable" if failed else "base_not_loaded"
    return ErrorReply(503, str(error), type="server_error", param="model", code=code, headers=headers)


def _unsupported(error: UnsupportedRequestError) -> ErrorReply:
    return ErrorReply(400, str(error), param=error.param, code="unsupported_value")


def _context(error: ContextExceededError) -> ErrorReply:
    return ErrorReply(400, str(error), param=error.param, code=CONTEXT_EXCEEDED)


def _engine(error: EngineError) -> ErrorReply:
    return ErrorReply(500, str(error), type="server_error", code="engine_error")


def _unread(error: UnreadAnswerError) -> ErrorReply:
    headers = {"x-should-retry": "false"}
    return ErrorReply(408, str(error), code="answer_not_read", headers=headers)


def _http(error: HTTPException) -> ErrorReply:
    message = {
        404: "There is no such endpoint.",
        405: "This endpoint does not take that method.",
    }.get(error.status_code, HTTPStatus(error.status_code).phrase)
    code = HTTPStatus(error.status_code).name.lower()
    return ErrorReply(error.status_code, message, code=code, headers=dict(error.headers or {}))


def _timeout(_error: TimeoutError) -> ErrorReply:
    message = "The request took longer than this server allows; ask for fewer tokens."
    return ErrorReply(504, message, type="server_error", code="timeout", headers={"x-should-retry": "false"})


def _unknown_name(error: UnknownNameError) -> ErrorReply:
    code = "model_not_found" if error.field == "model" else "adapter_not_found"
    return ErrorReply(404, str(error), param=error.field, code=code)


def _unknown_adapter(error: UnknownAdapterError) -> ErrorReply:
    return ErrorReply(404, str(error), param="model", code="adapter_not_found")


def _selection(error: SelectionError) -> ErrorReply:
    return ErrorReply(400, str(error), param=error.field, code="bad_selection")


def _template(error: TemplateError) -> ErrorReply:
    return ErrorReply(400, str(error), param="messages", code="bad_conversation")


_REPLIES: Mapping[type, Callable[[Any], ErrorReply]] = {
    ApiError: lambda error: error.reply,
    AdapterNotLoadedError: _not_loaded,
    AdapterRefusedError: _refused,
    AdaptersBusyError: _slots_full,
    AdapterUnavailableError: _unavailable,
    BaseNotLoadedError: _base_not_loaded,
    ContextExceededError: _context,
    EngineBusyError: _busy,
    EngineDeadError: _dead,
    EngineError: _engine,
    HTTPException: _http,
    SelectionError: _selection,
    TemplateError: _template,
    TimeoutError: _timeout,
    UnknownAdapterError: _unknown_adapter,
    UnknownNameError: _unknown_name,
    UnreadAnswerError: _unread,
    UnsupportedRequestError: _unsupported,
}
