"""Plain data that the processes of the load generator exchange: planned requests and their results."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

RequestOutcome = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A planned request, with what its answer must be like."""

    number: int
    path: str
    body: dict[str, Any]
    model: str
    """The value of the field `model` in the request."""
    language: str = ""
    """Language of the prompt. Empty if unknown."""
    expects: str = ""
    """Alias of the adapter that should answer. Empty if any adapter may answer."""
    tokens: int = 0
    """Number of tokens that the answer must have. 0: the model may end the answer at any length."""
    at: float = 0.0
    """When an open loop sends the request, in seconds after the start of the run."""
    session: int = 0
    """Number of the conversation that the request belongs to. Its messages then follow those of the earlier
    requests. 0: it belongs to no conversation.
    """
    cancel_after: int = 0
    """Number of events with text after which the client disconnects. 0: the client reads the whole answer."""
    check: Literal["text", "json", "voices"] = "text"
    """The expected form of the answer: `text` for a stream of text, `json` for a stream of one JSON object,
    `voices` for the answers of several models.
    """
    keys: tuple[str, ...] = ()
    """Keys that the answer's JSON object must have."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The result of a request. Times are in seconds after the start of the run."""

    number: int
    model: str
    language: str
    expects: str
    outcome: RequestOutcome
    status: int
    """HTTP status. 0 if there was no answer."""
    intended: float
    """When the request should have been sent. Latencies are measured from this time."""
    sent: float
    end: float
    arrivals: tuple[float, ...] = ()
    """Arrival time of each chunk of the answer that has text."""
    events: tuple[int, ...] = ()
    """Number of events with text in each chunk of `arrivals`."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    """Number of answer tokens that the server reported. If the client disconnected, the number of events that
    it received.
    """
    words: int = 0
    answered_by: str = ""
    """Name of the adapter that answered: the header `X-OneSeek-Adapter`, else the body's `model`."""
    queue: float | None = None
    """Seconds that the request waited in the server's queue, as OneSeek states it in the answer's receipt (an
    object that says how the answer was made). None without a receipt.
    """
    fault: str = ""
    """Reason why the request failed. Empty if it did not fail."""

    @property
    def ttft(self) -> float | None:
        """Seconds from the time when the request should be sent to the first token. None if there was no
        token.
        """
        return self.arrivals[0] - self.intended if self.arrivals else None

    @property
    def latency(self) -> float:
        """Seconds from the time when the request should be sent to the end of the answer."""
        return self.end - self.intended

    @property
    def gaps(self) -> list[float]:
        """Seconds between successive chunks of the answer that have text."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]


@dataclass(frozen=True, slots=True)
class ClientUse:
    """The CPU time that a client process used, and how late it sent its requests."""

    cpu_seconds: float
    seconds: float
    late_p99: float
    """99th percentile of the seconds by which an open loop sent its requests late. 0 in a closed loop."""

    @property
    def share(self) -> float:
        """CPU time as a fraction of one core."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class ClientJob:
    """The requests that one client process sends. The process reads them from standard input."""

    url: str
    headers: dict[str, str]
    timeout: float
    """Seconds after which a request counts as failed."""
    users: tuple[tuple[PlannedRequest, ...], ...] = ()
    """Requests of a closed loop, grouped by user. A user sends one request at a time."""
    arrivals: tuple[PlannedRequest, ...] = ()
    """Requests of an open loop, each with the time at which to send it."""
    keep_alive: bool = True
    """True to reuse connections. False to open a new connection for each request."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """The results of a client process, which it writes as its last line of output."""

    records: tuple[RequestRecord, ...]
    use: ClientUse


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress of a client process, which it writes as a line of output twice a second."""

    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens: int = 0
    running: int = 0

    @property
    def ended(self) -> int:
        """Number of requests that were completed, cancelled or failed."""
        return self.completed + self.cancelled + self.failed

    def __add__(self, other: LoadProgress) -> LoadProgress:
        return LoadProgress(
            self.completed + other.completed,
            self.cancelled + other.cancelled,
            self.failed + other.failed,
            self.tokens + other.tokens,
            self.running + other.running,
        )


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Results of a whole run: the records of all requests in order of their numbers, and the CPU use of each
    client process.
    """

    records: tuple[RequestRecord, ...]
    uses: tuple[ClientUse, ...]
    seconds: float
    """Seconds from the time when the first request should be sent to the end of the last answer."""
    began: float
    """Start of the run in Unix time."""
    warnings: tuple[str, ...] = field(default=())
