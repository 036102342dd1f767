"""Client processes against a real server: what they count, and how they measure."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from random import Random

import msgspec
import pytest

from bench.load.arrivals import arrival_times
from bench.load.drive import LoadMode, client_warnings, drive
from bench.load.records import ClientJob, ClientUse, LoadProgress, LoadRun, PlannedRequest
from tests.bench.load.answering import AnsweringServer, answering


@pytest.fixture
def server() -> Iterator[tuple[str, AnsweringServer]]:
    with answering() as made:
        yield made


def asked(number: int, text: str = "plain", tokens: int = 4, **fields: int | float) -> PlannedRequest:
    body = {"model": "sv", "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    return PlannedRequest(number, "/v1/chat/completions", body, "sv", tokens=tokens, **fields)  # pyright: ignore[reportArgumentType]  # its own fields


def send(url: str, plan: list[PlannedRequest], load: LoadMode) -> LoadRun:
    return asyncio.run(drive(url, plan, load))


def test_every_answer_is_checked_and_every_status_counted(server: tuple[str, AnsweringServer]) -> None:
    url, _ = server
    plan = [asked(n, text) for n, text in enumerate(["plain", "refused", "short", "cut", "plain"], 1)]
    run = send(url, plan, LoadMode(users=2, processes=2))
    assert [record.outcome for record in run.records] == [
        "completed",
        "failed",
        "failed",
        "failed",
        "completed",
    ]
    assert [record.status for record in run.records] == [200, 429, 200, 200, 200]
    assert all(record.fault for record in run.records if record.outcome == "failed")
    first = run.records[0]
    assert (first.completion_tokens, first.prompt_tokens, first.words) == (4, 5, 4)
    assert (len(first.arrivals), sum(first.events), first.answered_by) == (len(first.events), 4, "sv@v1")
    assert first.sent <= first.arrivals[0] <= first.arrivals[-1] <= first.end
    assert len(run.uses) == 2
    assert all(0 < use.cpu_seconds < 10 for use in run.uses)


def test_nobody_there_is_a_failure_of_every_request() -> None:
    run = send("http://127.0.0.1:9", [asked(1), asked(2)], LoadMode(users=2))
    assert [(record.outcome, record.status) for record in run.records] == [("failed", 0)] * 2


def test_a_client_that_hangs_up_is_neither_completed_nor_failed(server: tuple[str, AnsweringServer]) -> None:
    url, made = server
    run = send(url, [asked(1, tokens=200, cancel_after=3), asked(2)], LoadMode(users=2))
    left, whole = run.records
    assert (left.outcome, whole.outcome) == ("cancelled", "completed")
    assert 3 <= left.completion_tokens < 50
    assert len(made.bodies) == 2


def test_a_user_keeps_its_connection_unless_the_server_would_close_it(
    server: tuple[str, AnsweringServer],
) -> None:
    url, answering = server
    plan = [asked(1), asked(2), asked(3)]
    send(url, plan, LoadMode(users=1))
    assert len(set(answering.peers)) == 1
    answering.peers.clear()
    send(url, plan, LoadMode(users=1, keep_alive=False))
    assert len(set(answering.peers)) == 3


def test_an_open_loop_counts_from_the_intended_start(server: tuple[str, AnsweringServer]) -> None:
    url, _ = server
    # The turns of one session follow each other, so the second is sent 0.3 s late; that wait is its user's.
    plan = [asked(1, "late", at=0.0, session=1), asked(2, at=0.01, session=1), asked(3, at=0.02)]
    first, second, third = send(url, plan, LoadMode()).records
    assert (first.intended, second.intended, third.intended) == (0.0, 0.01, 0.02)
    assert second.ttft is not None
    assert third.ttft is not None
    assert second.sent - second.intended > 0.25
    assert second.ttft > 0.25 > third.ttft


def test_a_session_repeats_what_was_said(server: tuple[str, AnsweringServer]) -> None:
    url, made = server
    send(url, [asked(n, f"turn {n}", session=7) for n in (1, 2, 3)], LoadMode(users=3, processes=2))
    assert [len(body["messages"]) for body in made.bodies] == [1, 3, 5]
    assert [message["role"] for message in made.bodies[2]["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert made.bodies[2]["messages"][1]["content"] == "ord " * 4


def test_progress_ends_with_every_request(server: tuple[str, AnsweringServer]) -> None:
    url, _ = server
    seen: list[LoadProgress] = []
    ended: list[int] = []

    async def beside(progress: Callable[[], LoadProgress]) -> None:
        while (now := progress().ended) < 6:
            await asyncio.sleep(0.01)
        ended.append(now)

    plan = [asked(n) for n in range(1, 7)]
    asyncio.run(drive(url, plan, LoadMode(users=3), seen.append, beside))
    assert ended == [6]
    assert (seen[-1].completed, seen[-1].running, seen[-1].tokens) == (6, 0, 24)


def test_arrivals_have_their_rate_and_burstiness() -> None:
    for burstiness in (0.25, 1.0, 4.0):
        times = arrival_times(50, 200, Random(3), burstiness)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert len(times) / 200 == pytest.approx(50, rel=0.1)
        assert (statistics.stdev(gaps) / statistics.mean(gaps)) ** 2 == pytest.approx(burstiness, rel=0.2)
    with pytest.raises(ValueError, match="rate 0"):
        arrival_times(0, 1, Random())


@pytest.mark.parametrize(("users", "requests", "processes"), [(1, 40, 1), (200, 400, 1), (4, 2, 1)])
def test_the_client_leaves_half_of_the_cores(users: int, requests: int, processes: int) -> None:
    assert LoadMode(users=users).process_count(requests) >= processes
    assert LoadMode(users=users, processes=3).process_count(requests) == min(3, users, requests)


def test_a_client_that_is_the_limit_is_a_warning() -> None:
    assert client_warnings([ClientUse(0.5, 1.0, 0.0)]) == ()
    (busy,) = client_warnings([ClientUse(0.1, 1.0, 0.0), ClientUse(0.9, 1.0, 0.0)])
    assert "90%" in busy
    (late,) = client_warnings([ClientUse(0.1, 1.0, 0.1)])
    assert "100 ms" in late


def test_a_client_process_ends_with_its_parent(server: tuple[str, AnsweringServer]) -> None:
    url, made = server
    job = msgspec.json.encode(ClientJob(url, {}, 600, ((asked(1, tokens=100_000),),)))
    command = [sys.executable, "-m", "bench.load.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(job + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b'"ready"\n'
        process.stdin.write(b"0\n")
        process.stdin.flush()
        while not made.bodies:
            time.sleep(0.01)
        process.stdin.close()
        assert process.wait(30) == 1
