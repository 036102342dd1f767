"""Errors that cross layers: those of an engine, and those of a request with their reply.

Messages name the field, the value and the remedy; they never hold a path, an address or a stack of the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

CONTEXT_EXCEEDED = "context_length_exceeded"
"""OpenAI's code, by which clients fall back to a model with a longer context."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """One error as a client sees it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def body(self) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}` as JSON."""
        detail = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": detail})

    def event(self) -> bytes:
        """The same as one server-sent event, for an error after a stream has begun."""
        return b"data: " + self.body() + b"\n\n"


class ApiError(Exception):
    """A request that is refused; carries the reply."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.message)
        self.reply = reply


def bad_field(param: str | None, message: str, *, code: str | None = None, status: int = 400) -> ApiError:
    """A field that cannot be served; `param` is its JSON path, such as `messages[0].content`."""
    return ApiError(ErrorReply(status, message, param=param, code=code))


def describe_context(context: int, prompt: int | str, asked: int | None = None) -> str:
    """The message for what `context` tokens cannot hold, in the words that OpenAI's clients look for.

    `prompt` counts its tokens, or says in words how many there are.
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
    """A prompt, with the length that is asked for, that `context` tokens cannot hold."""
    return bad_field(param, describe_context(context, prompt, asked), code=CONTEXT_EXCEEDED)


class EngineError(RuntimeError):
    """The engine failed at this request, or as a whole; its message is safe to show."""


class EngineBusyError(EngineError):
    """The queue is full. `retry_after` is an estimate in seconds; `gate` is where that was found."""

    def __init__(self, message: str, retry_after: float, gate: str = "engine") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.gate = gate
        self.places: int | None = None
        """How many places the full queue has; None if something else is full."""
        self.unread = False
        """True if the request's body is left unread, after which the connection cannot be used again."""


class EngineDeadError(EngineError):
    """The engine stopped and will not come back in this process."""


class UnreadAnswerError(EngineError):
    """The client took the answer so slowly that what waited for it has been dropped."""


class AdapterRefusedError(EngineError):
    """An adapter cannot be loaded: the message says why, and nothing changed."""


class AdapterUnavailableError(AdapterRefusedError):
    """A version that was accepted cannot be served any more, until its files are restored."""


class AdapterNotLoadedError(EngineError):
    """A request names an adapter that is not resident, or is being unloaded; `load` would bring it back."""


class AdaptersBusyError(AdapterNotLoadedError):
    """Every slot for adapters is in use; one comes free when requests end."""


class BaseNotLoadedError(EngineError):
    """A base that is loaded on demand is not there yet. `retry_after` is in seconds."""

    def __init__(self, base: str, retry_after: float) -> None:
        super().__init__(f"The base {base} is being loaded; ask again in a moment.")
        self.base = base
        self.retry_after = retry_after


class BaseUnavailableError(BaseNotLoadedError):
    """A base that is loaded on demand could not be loaded, which is tried again after `retry_after`."""

    def __init__(self, base: str, problem: str, retry_after: float) -> None:
        super().__init__(base, retry_after)
        self.args = (f"The base {base} could not be loaded: {problem}.",)


class UnsupportedRequestError(EngineError):
    """The request asks for something that this engine does not do. `param` is the request's field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ContextExceededError(UnsupportedRequestError):
    """Prompt and answer together are more than the context or the memory holds."""
