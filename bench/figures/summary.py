"""Compute the figures of a benchmark run as a whole, and for each adapter and each language in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.figures.level import ServiceLevel
from bench.figures.spread import MsSpread, jain, spread_ms
from bench.load.closed_loop import Trace
from bench.load.records import RequestRecord
from bench.load.steady import steady

FAULTS = 20
"""Maximum number of error messages that a report quotes."""


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Figures of a group of requests, such as those of an adapter. Rates are per second of the whole run."""

    requests: int
    completed: int
    cancelled: int
    failed: int
    ttft_ms: MsSpread | None
    itl_ms: MsSpread | None
    """Inter-token latency: the time between successive chunks of a stream."""
    e2e_ms: MsSpread | None
    """End-to-end latency of completed requests, from the time at which the request should be sent."""
    queue_ms: MsSpread | None
    """Time in the server's queue, as OneSeek states it in each answer's receipt (an object that says how the
    answer was made). None if the server sends no receipts.
    """
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    words: int
    input_tokens_per_second: float
    output_tokens_per_second: float
    words_per_second: float
    requests_per_second: float
    goodput_per_second: float
    """Number of completed requests per second that kept within the service level."""


@dataclass(frozen=True, slots=True)
class RoutingFigures:
    """Routing accuracy: how often the expected adapter answered."""

    judged: int
    right: int

    @property
    def accuracy(self) -> float | None:
        """Share of the judged answers that came from the expected adapter. None if no answer was judged."""
        return self.right / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Figures of a whole benchmark run."""

    seconds: float
    statuses: Mapping[str, int]
    """Maps each HTTP status to the number of requests that got it. Status 0 means that no answer came."""
    total: GroupFigures
    by_adapter: Mapping[str, GroupFigures]
    by_language: Mapping[str, GroupFigures]
    fairness: float | None
    """Jain's fairness index over the adapters' mean speed of an answer, in tokens per second. None with fewer
    than two adapters.
    """
    routing: RoutingFigures
    level: ServiceLevel
    level_holds: bool
    steady_tokens_per_second: float | None
    """Tokens per second of a closed loop, measured without its ramp-up and its end. None for an open loop or
    a short run.
    """
    faults: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens per second. In a closed loop that is long enough, the ramp-up and the end of the run
        are left out; otherwise the rate is that of the whole run.
        """
        return self.steady_tokens_per_second or self.total.output_tokens_per_second


def summarize(
    records: Sequence[RequestRecord], seconds: float, level: ServiceLevel, users: int = 0
) -> RunFigures:
    """Compute the figures of a benchmark run that took `seconds` seconds. `users` is the number of concurrent
    users of a closed loop, 0 for an open loop.
    """
    adapters = _parts(records, answered_by)
    return RunFigures(
        round(seconds, 3),
        {str(status): count for status, count in sorted(Counter(r.status for r in records).items())},
        group(records, seconds, level),
        {name: group(part, seconds, level) for name, part in adapters.items()},
        {name: group(part, seconds, level) for name, part in _parts(records, lambda r: r.language).items()},
        _fairness(adapters.values()),
        _routing(records),
        level,
        level.holds(records),
        _steady(records, users) if users else None,
        tuple(f"request {r.number}: {r.fault}" for r in records if r.fault)[:FAULTS],
    )


def answered_by(record: RequestRecord) -> str:
    """Return the name of the adapter that answered, without its version. If it is unknown, return the model
    that the request named.
    """
    return record.answered_by.partition("@")[0] or record.model


def group(records: Sequence[RequestRecord], seconds: float, level: ServiceLevel) -> GroupFigures:
    """Compute the figures of a group of requests. Rates are per second of the whole run, which took
    `seconds`.
    """
    outcomes = Counter(record.outcome for record in records)
    done = [record for record in records if record.outcome == "completed"]
    prompts, cached = sum(r.prompt_tokens for r in done), sum(r.cached_tokens for r in done)
    made = sum(r.completion_tokens for r in records if r.outcome != "failed")
    words = sum(r.words for r in done)
    kept = sum(level.keeps(record) for record in done)
    prompts_in, made_out, words_out, ended, good = (
        round(value / seconds, 3) if seconds else 0.0 for value in (prompts, made, words, len(done), kept)
    )
    return GroupFigures(
        len(records),
        outcomes["completed"],
        outcomes["cancelled"],
        outcomes["failed"],
        spread_ms(r.ttft for r in records if r.ttft is not None),
        spread_ms(gap for r in records for gap in r.gaps),
        spread_ms(r.latency for r in done),
        spread_ms(r.queue for r in done if r.queue is not None),
        prompts,
        cached,
        made,
        words,
        prompts_in,
        made_out,
        words_out,
        ended,
        good,
    )


def _parts(
    records: Sequence[RequestRecord], key: Callable[[RequestRecord], str]
) -> dict[str, list[RequestRecord]]:
    parts: dict[str, list[RequestRecord]] = {}
    for record in records:
        if key(record):
            parts.setdefault(key(record), []).append(record)
    return dict(sorted(parts.items()))


def _fairness(parts: Iterable[Sequence[RequestRecord]]) -> float | None:
    speeds: list[float] = []
    for part in parts:
        own = [r.completion_tokens / r.latency for r in part if r.outcome == "completed" and r.latency > 0]
        if own:
            speeds.append(sum(own) / len(own))
    found = jain(speeds) if len(speeds) > 1 else None
    return None if found is None else round(found, 4)


def _routing(records: Sequence[RequestRecord]) -> RoutingFigures:
    judged = [r for r in records if r.expects and r.outcome == "completed" and r.answered_by]
    return RoutingFigures(len(judged), sum(answered_by(r) == r.expects for r in judged))


def _steady(records: Sequence[RequestRecord], users: int) -> float | None:
    traces = [
        Trace(r.sent, list(r.arrivals), list(r.events), r.completion_tokens)
        for r in records
        if r.outcome == "completed"
    ]
    found = steady(traces, users)
    return round(found.tokens_per_second, 3) if found else None
