"""Messages between the server's process (the ingress) and the engine's replicas: calls, frames (encoded parts
of answers), and errors.

Ray pickles calls. Frames are MessagePack, which is several times faster to read than pickled deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from adapters.lora.manifest import Adapter
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    ContextExceededError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    NoSlotError,
    UnreadAnswerError,
    UnsupportedRequestError,
)
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest


class ReplicaLostError(Exception):
    """A replica is gone or does not answer. The call can be retried on another replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCall:
    """A call from the server to a replica of the engine."""

    request: GenerationRequest | EmbeddingRequest
    adapters: tuple[Adapter, ...]
    """The adapters of the request, from which a replica loads those that it does not have."""
    ranked: tuple[str, ...]
    """Ids of replicas, best first. If none of them is available, any other replica is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaCall:
    """A call for one particular replica. If another replica gets it, that raises `ReplicaLostError`."""

    replica: str
    adapter: Adapter | None = None
    """The adapter to load, if any."""
    make_room: bool = False
    """True if another adapter may be evicted to load this one."""
    digest: str = ""
    """Digest of the adapter to unload, if any."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """Return the ids of replicas, best first. See `EngineCall.ranked`."""
        return (self.replica,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Properties that all replicas of an engine share."""

    info: EngineInfo
    at_once: int
    """Number of requests that one replica runs at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """The state that a replica reports, about once a second."""

    replica: str
    state: EngineState


class SentFailure(msgspec.Struct, frozen=True):
    """An `EngineError` as data, to send to another process."""

    kind: str
    message: str
    param: str = ""
    retry_after: float = 0.0


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of an answer. The first has no deltas and confirms that the replica has the request."""

    replica: str
    deltas: list[Delta] = []
    """Deltas in order. Each may hold the tokens of several steps."""
    failure: SentFailure | None = None
    """The error that ended the answer, if any."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Encode `frame` as MessagePack."""
    return _ENCODER.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """Decode a frame. Raises `msgspec.ValidationError` if `data` is not a frame."""
    return _DECODER.decode(data)


_KINDS: Mapping[str, tuple[type[EngineError], Callable[[SentFailure], EngineError]]] = {
    "busy": (EngineBusyError, lambda failure: EngineBusyError(failure.message, failure.retry_after)),
    "unread": (UnreadAnswerError, lambda failure: UnreadAnswerError(failure.message)),
    "unavailable": (AdapterUnavailableError, lambda failure: AdapterUnavailableError(failure.message)),
    "no_slot": (NoSlotError, lambda failure: NoSlotError(failure.message)),
    "refused": (AdapterRefusedError, lambda failure: AdapterRefusedError(failure.message)),
    "slots": (AdaptersBusyError, lambda failure: AdaptersBusyError(failure.message)),
    "not_loaded": (AdapterNotLoadedError, lambda failure: AdapterNotLoadedError(failure.message)),
    "context": (ContextExceededError, lambda failure: ContextExceededError(failure.message, failure.param)),
    "unsupported": (
        UnsupportedRequestError,
        lambda failure: UnsupportedRequestError(failure.message, failure.param),
    ),
    "dead": (EngineDeadError, lambda failure: EngineDeadError(failure.message)),
    "engine": (EngineError, lambda failure: EngineError(failure.message)),
}
"""Name in `SentFailure.kind` → the error's type, and a function that restores it. Subclasses come first."""


def describe_failure(error: EngineError) -> SentFailure:
    """Convert `error` to data for the other process, by the first matching type in the table."""
    kind = next(name for name, (made, _) in _KINDS.items() if isinstance(error, made))
    param = error.param if isinstance(error, UnsupportedRequestError) else ""
    retry_after = error.retry_after if isinstance(error, EngineBusyError) else 0.0
    return SentFailure(kind, str(error), param, retry_after)


def restore_failure(failure: SentFailure) -> EngineError:
    """Restore the error that a replica sent."""
    _, make = _KINDS[failure.kind]
    return make(failure)
