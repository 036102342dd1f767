"""Send the planned requests from separate client processes, and collect their results."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bench.load.records import (
    ClientJob,
    ClientReport,
    ClientUse,
    LoadProgress,
    LoadRun,
    PlannedRequest,
    RequestRecord,
)

USERS_PER_PROCESS = 64
"""Number of concurrent users for which one client process is started, if the number of processes is not
given.
"""
BUSY = 0.8
"""Fraction of a CPU core. If a client process uses more, the report warns that it may limit the result."""
LATE = 0.02
"""Seconds by which an open loop may send its requests late without a warning."""
LEAD = 0.05
"""Seconds between the moment when all processes are ready and the start of the run."""
BESIDE_SECONDS = 60.0
"""Maximum seconds that the work beside the load, such as sampling metrics, may take after the last
request.
"""
LONGEST_LINE = 1 << 30

OnProgress = Callable[[LoadProgress], None]


@dataclass(frozen=True, slots=True)
class LoadMode:
    """How the planned requests are sent. With `users` above 0, each user sends one request at a time. With 0,
    requests are sent at their planned times.
    """

    users: int = 0
    processes: int = 0
    """Number of client processes. 0: one for each 64 users, but at most half as many as CPU cores."""
    timeout: float = 600.0
    """Seconds after which a request counts as failed."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    keep_alive: bool = True
    """True to reuse connections. False to open a new connection for each request."""

    def __post_init__(self) -> None:
        for name in ("users", "processes"):
            if getattr(self, name) < 0:
                raise ValueError(f"the load generator cannot run {getattr(self, name)} {name}; use 0 or more")

    def process_count(self, requests: int) -> int:
        """Return the number of client processes for a plan of `requests` requests."""
        streams = self.users or requests
        wanted = self.processes or min(-(-streams // USERS_PER_PROCESS), max(1, (os.cpu_count() or 1) // 2))
        return max(1, min(wanted, streams, requests))


async def drive(
    url: str,
    plan: Sequence[PlannedRequest],
    load: LoadMode,
    on_progress: OnProgress | None = None,
    beside: Callable[[Callable[[], LoadProgress]], Awaitable[None]] | None = None,
) -> LoadRun:
    """Send the requests of `plan` to the server at `url`, and return their records.

    The coroutine `beside` runs during the load, for example to sample metrics; its argument is a function
    that returns the progress so far. It must end soon after the last request. Raises `RuntimeError`, with the
    last lines of its error output, if a client process fails.
    """
    count = load.process_count(len(plan))
    progress = [LoadProgress()] * count

    def report(number: int, found: LoadProgress) -> None:
        progress[number] = found
        if on_progress is not None:
            on_progress(total())

    def total() -> LoadProgress:
        return sum(progress, LoadProgress())

    jobs, line = _divide(url, plan, load, count), StartLine(count)
    aside = asyncio.create_task(_always(beside, total))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_client(job, number, line, report)) for number, job in enumerate(jobs)]
        await asyncio.wait_for(aside, BESIDE_SECONDS)
    except* RuntimeError as errors:
        raise errors.exceptions[0] from None
    finally:
        aside.cancel()
    return _merge([task.result() for task in tasks], line.began)


async def _always(
    beside: Callable[[Callable[[], LoadProgress]], Awaitable[None]] | None, total: Callable[[], LoadProgress]
) -> None:
    if beside is not None:
        await beside(total)


def _divide(url: str, plan: Sequence[PlannedRequest], load: LoadMode, count: int) -> list[ClientJob]:
    """Divide the plan into one job for each client process. All requests of a conversation go to the same
    user, and all requests of a user to the same process.
    """

    def job(users: Sequence[Sequence[PlannedRequest]], arrivals: Sequence[PlannedRequest]) -> ClientJob:
        return ClientJob(
            url, dict(load.headers), load.timeout, tuple(map(tuple, users)), tuple(arrivals), load.keep_alive
        )

    if load.users:
        users = by_user(plan, load.users)
        return [job(users[number::count], ()) for number in range(count)]
    return [job((), [asked for asked in plan if _lane(asked) % count == number]) for number in range(count)]


def _lane(asked: PlannedRequest) -> int:
    return asked.session or asked.number


def by_user(plan: Sequence[PlannedRequest], users: int) -> list[list[PlannedRequest]]:
    """Deal out the planned requests to the users in turn, but all requests of a conversation to the same
    user. Users who get no requests are left out.
    """
    hands: list[list[PlannedRequest]] = [[] for _ in range(users)]
    homes: dict[int, int] = {}
    for turn, asked in enumerate(plan):
        home = homes.setdefault(asked.session, len(homes)) if asked.session else turn
        hands[home % users].append(asked)
    return [hand for hand in hands if hand]


class StartLine:
    """Makes all client processes start at the same moment."""

    def __init__(self, processes: int) -> None:
        self._barrier = asyncio.Barrier(processes)
        self.start = 0.0
        """On `time.monotonic`, which all processes of a machine share."""
        self.began = 0.0
        """The same moment as Unix time."""

    async def wait(self) -> float:
        """Wait until all client processes are ready. Return the start time on `time.monotonic`, the same for
        all.
        """
        await self._barrier.wait()
        if not self.start:
            self.start, self.began = time.monotonic() + LEAD, time.time() + LEAD
        return self.start


async def _client(
    job: ClientJob, number: int, line: StartLine, report: Callable[[int, LoadProgress], None]
) -> ClientReport:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load.worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    last = b""
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        with contextlib.suppress(ConnectionError):
            await process.stdin.drain()
            if await process.stdout.readline():
                process.stdin.write(b"%r\n" % await line.wait())
                await process.stdin.drain()
        async for last in process.stdout:
            if not last.startswith(b'{"completed"'):
                break
            report(number, msgspec.json.decode(last, type=LoadProgress))
        process.stdin.close()
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code or not last.startswith(b'{"records"'):
        raise RuntimeError(
            f"a client process of the load generator ended with exit code {code}; its error output: "
            f"{(await errors).decode(errors='replace')[-2000:]}"
        )
    found = msgspec.json.decode(last, type=ClientReport)
    report(number, _sum_up(found.records))
    return found


def _sum_up(records: Sequence[RequestRecord]) -> LoadProgress:
    outcomes = [record.outcome for record in records]
    tokens = sum(record.completion_tokens for record in records)
    return LoadProgress(
        outcomes.count("completed"), outcomes.count("cancelled"), outcomes.count("failed"), tokens
    )


def _merge(reports: Sequence[ClientReport], began: float) -> LoadRun:
    records = sorted((record for report in reports for record in report.records), key=lambda r: r.number)
    first = min((record.intended for record in records), default=0.0)
    seconds = max((record.end for record in records), default=0.0) - first
    uses = tuple(report.use for report in reports)
    return LoadRun(tuple(records), uses, seconds, began, client_warnings(uses))


def client_warnings(uses: Sequence[ClientUse]) -> tuple[str, ...]:
    """Return warnings if the client processes, not the server, may have limited the result."""
    found: list[str] = []
    busiest, latest = max(use.share for use in uses), max(use.late_p99 for use in uses)
    if busiest > BUSY:
        found.append(
            f"a client process used {busiest:.0%} of a core, so the client may limit the result; "
            "raise --processes, or run the client on another machine"
        )
    if latest > LATE:
        found.append(
            f"1% of the requests were sent {latest * 1e3:.0f} ms late or more: the client cannot keep up "
            "with the rate; raise --processes, or run the client on another machine"
        )
    return tuple(found)
