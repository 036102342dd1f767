"""Converts exceptions to errors in OpenAI's format, by the exception's type. No other module does this.

Error messages name the field, the value and what to do. They never contain paths, addresses or stack traces
of the host.
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
    AdapterUnknownError,
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
"""Value in seconds of the header `Retry-After` while the engine is not ready."""
EXCHANGE_RETRY = 1
"""Value in seconds of the header `Retry-After` while an adapter is reloaded."""
SLOTS_RETRY = 5
"""Value in seconds of the header `Retry-After` while all adapter slots are in use."""


def reply_for(error: Exception) -> ErrorReply:
    """Return the HTTP error for the exception `error`, by its nearest base class in `_REPLIES`; else a plain
    500.
    """
    for kind in type(error).__mro__:
        render = _REPLIES.get(kind)
        if render is not None:
            return render(error)
    return _INTERNAL


_INTERNAL = ErrorReply(
    500,
    "The server failed while it handled this request; its log has the details under this request's ID.",
    type="server_error",
    code="internal_error",
)


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
    # The engine's reason may name files of the host, so only the log has it.
    return _unavailable("the engine could not load it; the server's log has the reason")


def _unknown_to_engine(_error: AdapterUnknownError) -> ErrorReply:
    message = (
        "This adapter does not exist for requests: the engine refused to load it. The server's log has the "
        "reason; GET /v1/models lists the adapters."
    )
    return ErrorReply(404, message, param="model", code="adapter_not_found")


def _unavailable(error: AdapterUnavailableError | str) -> ErrorReply:
    """Return the HTTP error for a known adapter that cannot be served until an operator repairs it."""
    message = f"This adapter cannot be served: {str(error).rstrip('.')}."
    headers = {"x-should-retry": "false"}
    return ErrorReply(
        503, message, type="server_error", param="model", code="adapter_unavailable", headers=headers
    )


def _not_loaded(_error: AdapterNotLoadedError) -> ErrorReply:
    message = "The adapter of this request is being reloaded. Retry shortly."
    headers = {"Retry-After": str(EXCHANGE_RETRY)}
    return ErrorReply(503, message, type="server_error", code="adapter_not_loaded", headers=headers)


def _slots_full(_error: AdaptersBusyError) -> ErrorReply:
    message = "All adapter slots are in use by other requests. Retry in a few seconds."
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
        404: "This endpoint does not exist; GET /docs lists all endpoints.",
        405: "This endpoint does not support this HTTP method.",
    }.get(error.status_code, HTTPStatus(error.status_code).phrase)
    code = HTTPStatus(error.status_code).name.lower()
    return ErrorReply(error.status_code, message, code=code, headers=dict(error.headers or {}))


def _timeout(_error: TimeoutError) -> ErrorReply:
    message = (
        "The request took longer than the server's setting request_timeout allows. Request fewer tokens, or "
        "ask the operator to raise request_timeout."
    )
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
    AdapterUnknownError: _unknown_to_engine,
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
