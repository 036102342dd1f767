"""Defines the errors of engines, and the errors of requests with their HTTP reply. All layers use them.

Messages name the field, the value and the remedy. They never hold a path, an address or a stack trace of the
host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

CONTEXT_EXCEEDED = "context_length_exceeded"
"""OpenAI's error code for a prompt that is too long. Some clients then fall back to a model with a longer
context.
"""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error in OpenAI's format, as a client receives it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def body(self) -> bytes:
        """Return the JSON `{"error": {"message", "type", "param", "code"}}`."""
        detail = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": detail})

    def event(self) -> bytes:
        """Return the error as a server-sent event, for a stream that has already begun."""
        return b"data: " + self.body() + b"\n\n"


class ApiError(Exception):
    """Raised to refuse a request. `reply` is the error that the client receives."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


def bad_field(param: str | None, message: str, *, code: str | None = None, status: int = 400) -> ApiError:
    """Return the error for an invalid or unsupported field. `param` is its path, such as
    `messages[0].content`.
    """
    return ApiError(ErrorReply(status, message, param=param, code=code))


def describe_context(context: int, prompt: int | str, asked: int | None = None) -> str:
    """Return the message for a request that exceeds a context of `context` tokens, in the wording that
    OpenAI's clients look for.

    `prompt` is the prompt's number of tokens, or a text such as "at least 5000 characters".
    """
    most = f"This model's maximum context length is {context} tokens. However, "
    # LangChain looks for the code in the text of the client's error, which may be this message alone.
    if asked is None or isinstance(prompt, str):
        return f"{most}your prompt has {prompt} tokens. Shorten the prompt ({CONTEXT_EXCEEDED})."
    total = prompt + asked
    return (
        f"{most}you requested {total} tokens ({prompt} in the prompt, {asked} in the completion). "
        f"Shorten the prompt or the completion ({CONTEXT_EXCEEDED})."
    )


def context_exceeded(param: str, context: int, prompt: int | str, asked: int | None = None) -> ApiError:
    """Return the error for a prompt and a requested length that together exceed `context` tokens."""
    return bad_field(param, describe_context(context, prompt, asked), code=CONTEXT_EXCEEDED)


class EngineError(RuntimeError):
    """The engine failed, for one request or entirely. The message is safe to show to a client."""


class EngineBusyError(EngineError):
    """The queue has no place for a request. `retry_after` is an estimate in seconds; `gate` names the check
    that refused the request.
    """

    def __init__(self, message: str, retry_after: float, gate: str = "engine") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.gate = gate
        self.places: int | None = None
        """Number of places in the full queue; None if something else is full."""
        self.unread = False
        """True if the request's body stays unread, so that the connection must be closed."""


class EngineDeadError(EngineError):
    """The engine stopped and will not restart in this process."""


class UnreadAnswerError(EngineError):
    """The client read the answer too slowly, so the server dropped the rest of the answer."""


class AdapterRefusedError(EngineError):
    """An adapter cannot be loaded. The message has the reason; the engine's state has not changed."""


class AdapterUnknownError(AdapterRefusedError):
    """The engine refuses to load an adapter that it has never served. The server then forgets the adapter's
    name.
    """


class NoSlotError(AdapterRefusedError):
    """An adapter cannot be loaded because the engine has no slot for it; the adapter itself is valid."""


class AdapterUnavailableError(AdapterRefusedError):
    """An adapter version that was served earlier cannot be served until its files are restored."""


class AdapterNotLoadedError(EngineError):
    """A request needs an adapter that is not loaded or is being unloaded. The caller has to load the adapter
    and retry.
    """


class AdaptersBusyError(AdapterNotLoadedError):
    """Every adapter slot is in use. A slot becomes free when requests end."""


class BaseNotLoadedError(EngineError):
    """A base that is loaded on demand is not loaded yet. `retry_after` is in seconds."""

    def __init__(self, base: str, retry_after: float) -> None:
        super().__init__(f"The base {base} is being loaded. Retry shortly.")
        self.base = base
        self.retry_after = retry_after


class BaseUnavailableError(BaseNotLoadedError):
    """A base that is loaded on demand failed to load. The next attempt is made after `retry_after`
    seconds.
    """

    def __init__(self, base: str, problem: str, retry_after: float) -> None:
        super().__init__(base, retry_after)
        self.args = (f"The base {base} could not be loaded: {problem}.",)


class UnsupportedRequestError(EngineError):
    """The engine does not support what a request asks for. `param` is the field of the request."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ContextExceededError(UnsupportedRequestError):
    """Prompt and answer together exceed the context or the KV cache."""


def first_line(error: Exception) -> str:
    """Return the first line of a driver's or system's error message, at most 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
