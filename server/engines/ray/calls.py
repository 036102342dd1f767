"""Messages between the server's process (the ingress) and the engine's replicas: calls, errors, and frames,
which are encoded parts of answers.

Ray pickles calls. Frames are encoded with MessagePack, which is several times faster to read than pickled
deltas.
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
    """A replica of the engine is gone or does not answer. The call can be retried on another replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCall:
    """A call that asks a replica of the engine to generate an answer or to embed a text."""

    request: GenerationRequest | EmbeddingRequest
    adapters: tuple[Adapter, ...]
    """The adapters that the request uses. The replica loads those that it has not loaded yet."""
    ranked: tuple[str, ...]
    """Ids of the engine's replicas in the order in which to try them. If none of them is available, any
    replica is used.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaCall:
    """A call to one particular replica of the engine, for its state or its adapters. Other replicas raise
    `ReplicaLostError`.
    """

    replica: str
    adapter: Adapter | None = None
    """The adapter that the replica should load, if any."""
    make_room: bool = False
    """True if the replica may evict another adapter to load this one."""
    digest: str = ""
    """Digest of the adapter that the replica should unload; empty if none."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """Id of the only replica that may get this call, as a tuple. See `EngineCall.ranked`."""
        return (self.replica,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Properties of an engine that are the same in all its replicas."""

    info: EngineInfo
    at_once: int
    """Maximum number of requests that one replica runs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """The id of an engine replica and the state of its engine, as the replica reports them."""

    replica: str
    state: EngineState


class SentFailure(msgspec.Struct, frozen=True):
    """An `EngineError` as plain data, to send from a replica to the server's process."""

    kind: str
    message: str
    param: str = ""
    retry_after: float = 0.0


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of an answer, as a replica sends it. The first frame of an answer has no deltas and confirms
    that the replica has accepted the request.
    """

    replica: str
    deltas: list[Delta] = []
    """The deltas in this part of the answer, in order. Each may hold the tokens of several engine steps."""
    failure: SentFailure | None = None
    """The error that ended the answer; None if the answer goes on or is complete."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Frame)


def encode_frame(frame: Frame) -> bytes:
    """Encode a part of an answer as MessagePack."""
    return _ENCODER.encode(frame)


def decode_frame(data: bytes) -> Frame:
    """Decode a part of an answer from MessagePack. Raises `msgspec.ValidationError` if `data` is not a
    frame.
    """
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
"""Maps each value of `SentFailure.kind` to the error's type and to a function that makes such an error.
Subclasses come before their base classes.
"""


def describe_failure(error: EngineError) -> SentFailure:
    """Convert `error` to data that can be sent to another process. Its kind is the first one in `_KINDS`
    whose type matches.
    """
    kind = next(name for name, (made, _) in _KINDS.items() if isinstance(error, made))
    param = error.param if isinstance(error, UnsupportedRequestError) else ""
    retry_after = error.retry_after if isinstance(error, EngineBusyError) else 0.0
    return SentFailure(kind, str(error), param, retry_after)


def restore_failure(failure: SentFailure) -> EngineError:
    """Convert the data that a replica has sent back to the error that it describes."""
    _, make = _KINDS[failure.kind]
    return make(failure)
