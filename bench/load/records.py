"""Requests and their results as plain data that is passed between the processes of the load generator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

RequestOutcome = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One planned request, and what its answer must be."""

    number: int
    path: str
    body: dict[str, Any]
    model: str
    """The value of the field `model` in the request."""
    language: str = ""
    """Language of the prompt. Empty if unknown."""
    expects: str = ""
    """Alias of the adapter that should answer. Empty if any may answer."""
    tokens: int = 0
    """Number of tokens that the answer must have. 0 if the model decides when it ends."""
    at: float = 0.0
    """When an open loop should send the request, in seconds after the run's start."""
    session: int = 0
    """Number of the session. Requests with the same number above 0 form a conversation: earlier turns precede
    their messages.
    """
    cancel_after: int = 0
    """Number of events with text after which the client disconnects. 0: it reads to the end."""
    check: Literal["text", "json", "voices"] = "text"
    """The expected form of the answer: a stream of text, a stream of a JSON object, or answers of
    several models.
    """
    keys: tuple[str, ...] = ()
    """Keys that the answer's JSON object must have."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The result of one request. Times are in seconds after the run's start."""

    number: int
    model: str
    language: str
    expects: str
    outcome: RequestOutcome
    status: int
    """HTTP status. 0 if there was no answer."""
    intended: float
    """When the request should have been sent. Latencies count from then."""
    sent: float
    end: float
    arrivals: tuple[float, ...] = ()
    """Arrival time of each piece of the body that has text."""
    events: tuple[int, ...] = ()
    """Number of events with text in each piece."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    """Number of answer tokens that the server reported. For a cancelled answer, the number of events
    received.
    """
    words: int = 0
    answered_by: str = ""
    """Name of the adapter that answered: the header `X-OneSeek-Adapter`, else the body's `model`."""
    queue: float | None = None
    """Seconds in the server's queue, from the answer's receipt."""
    fault: str = ""
    """Reason why the request failed."""

    @property
    def ttft(self) -> float | None:
        """Seconds from the intended start to the first token."""
        return self.arrivals[0] - self.intended if self.arrivals else None

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the end of the answer."""
        return self.end - self.intended

    @property
    def gaps(self) -> list[float]:
        """Seconds between successive pieces with text, as a reader sees them."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]


@dataclass(frozen=True, slots=True)
class ClientUse:
    """The processor time that one client process used."""

    cpu_seconds: float
    seconds: float
    late_p99: float
    """Lateness in seconds that 99% of an open loop's requests did not exceed. 0 in a closed loop."""

    @property
    def share(self) -> float:
        """CPU time as a share of one core."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class ClientJob:
    """The work of one client process, which reads it from standard input."""

    url: str
    headers: dict[str, str]
    timeout: float
    """Seconds after which a request counts as failed."""
    users: tuple[tuple[PlannedRequest, ...], ...] = ()
    """For a closed loop: the requests of each user, which sends them one after the other."""
    arrivals: tuple[PlannedRequest, ...] = ()
    """For an open loop: all requests, each with its intended start."""
    keep_alive: bool = True
    """True to reuse connections. False to open a new connection for each request."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """The last line that a client process writes."""

    records: tuple[RequestRecord, ...]
    use: ClientUse


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The progress that a client process writes twice a second."""

    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    tokens: int = 0
    running: int = 0

    @property
    def ended(self) -> int:
        """Number of requests that have ended."""
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
    """Results of a whole run: the records of all processes by request number, and what the processes used."""

    records: tuple[RequestRecord, ...]
    uses: tuple[ClientUse, ...]
    seconds: float
    """Seconds from the first request's intended start to the end of the last one."""
    began: float
    """Start of the run in Unix time."""
    warnings: tuple[str, ...] = field(default=())
