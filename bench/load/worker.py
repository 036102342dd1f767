"""Run one client process of the load generator: `python -m bench.load.worker`.

The process reads a `ClientJob` from the first line of standard input, writes `READY`, and waits for a second
line with the start time. It then sends the requests of the job. Its standard output has a `LoadProgress` as a
line of JSON twice a second, and a `ClientReport` as its last line. The process ends when its standard input
is closed, so that it does not outlive the benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from bench.load.client import StreamClient
from bench.load.records import ClientJob, ClientReport, ClientUse, LoadProgress, PlannedRequest, RequestRecord

PROGRESS_SECONDS = 0.5
READY = "ready"
"""First line that a client process writes: the process has its job and waits for the start time."""


async def run_job(
    job: ClientJob, start: float, on_progress: Callable[[LoadProgress], None] | None = None
) -> ClientReport:
    """Send every request of `job`, and return the results. `start` is the start of the run on
    `time.monotonic`.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=not job.keep_alive)
    timeout = aiohttp.ClientTimeout(total=job.timeout)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=job.headers) as http:
        client = StreamClient(http, job.url, start)
        reporting = asyncio.create_task(_report(client, on_progress))
        await asyncio.sleep(max(0.0, -client.now()))
        began, cpu = client.now(), time.process_time()
        late = [0.0]
        records = await _closed(client, job.users) if job.users else await _open(client, job.arrivals, late)
        used, seconds = time.process_time() - cpu, client.now() - began
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting
    late.sort()
    return ClientReport(tuple(records), ClientUse(used, seconds, late[int(0.99 * (len(late) - 1))]))


async def _closed(client: StreamClient, users: Sequence[Sequence[PlannedRequest]]) -> list[RequestRecord]:
    async def user(requests: Sequence[PlannedRequest]) -> list[RequestRecord]:
        return [await client.perform(asked) for asked in requests]

    return [record for records in await asyncio.gather(*map(user, users)) for record in records]


async def _open(
    client: StreamClient, arrivals: Sequence[PlannedRequest], late: list[float]
) -> list[RequestRecord]:
    """Send each request at its planned time, and return the records. Append to `late` the seconds by which
    each request was late.
    """
    sent: list[asyncio.Task[RequestRecord]] = []
    for asked in sorted(arrivals, key=lambda asked: asked.at):
        await asyncio.sleep(max(0.0, asked.at - client.now()))
        late.append(max(0.0, client.now() - asked.at))
        sent.append(asyncio.create_task(client.perform(asked, asked.at)))
    return list(await asyncio.gather(*sent))


async def _report(client: StreamClient, on_progress: Callable[[LoadProgress], None] | None) -> None:
    while on_progress is not None:
        await asyncio.sleep(PROGRESS_SECONDS)
        on_progress(client.progress)


def _write(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def _until_closed() -> None:
    """Wait until the parent process closes this process's standard input."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


async def _work(job: ClientJob, start: float) -> None:
    # A daemon thread would do, but an executor's is joined at the exit: the parent closes the pipe then.
    work = asyncio.create_task(run_job(job, start, _write))
    orphaned = asyncio.create_task(_until_closed())
    await asyncio.wait([work, orphaned], return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        raise SystemExit(1)
    _write(work.result())


def main() -> None:
    """Read the job from the first line of standard input and the start time from the second line, and run the
    job.
    """
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=ClientJob)
    _write(READY)
    start = float(sys.stdin.buffer.readline())
    if sys.platform == "win32":
        asyncio.run(_work(job, start))
    else:
        import uvloop

        uvloop.run(_work(job, start))


if __name__ == "__main__":
    main()
