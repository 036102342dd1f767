"""Send several requests to a teacher's server at once, and retry a request if the server is busy or does not
answer.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from adapters.evaluation.endpoint import EndpointError

Q = TypeVar("Q")
A = TypeVar("A")


class Stop(Protocol):
    """A signal, such as a `threading.Event`, that tells a distillation run to send no more questions."""

    def is_set(self) -> bool:
        """True if no more questions should be sent. Several threads call this often."""
        ...


FIRST_WAIT = 1.0
"""Seconds before the first retry of a request. Each further wait is twice as long."""
LONGEST_WAIT = 60.0
"""Maximum number of seconds before a retry, unless the server's Retry-After header asks for a longer wait."""
LONGEST_ASKED = 600.0
"""Longest wait in seconds that a server's Retry-After header may ask for. If it asks for more, the request
fails.
"""
_LOOK = 0.1


class _AbandonedError(Exception):
    """The run ended while a request was waiting for its next retry, so the request is not sent again."""


def side_by_side(
    ask: Callable[[Q], A], questions: Sequence[Q], many: int, stop: Stop, *, retries: int
) -> Iterator[tuple[Q, A]]:
    """Send `questions` with up to `many` requests in flight, and yield each question with its answer as
    answers arrive.

    After `stop` is set, send no further request, but wait for those in flight. If a request fails for good,
    also wait for the requests in flight, and then raise its error. If the caller leaves the iteration early,
    the threads end after their present requests and do not keep the process alive.

    An answer counts as in flight until the caller asks for the next one. So a caller that stores each answer
    loses at most `many` answers if it is killed.
    """
    waiting: queue.SimpleQueue[Q] = queue.SimpleQueue()
    for question in questions:
        waiting.put(question)
    done: queue.SimpleQueue[tuple[Q, A] | Exception | None] = queue.SimpleQueue()
    failed = threading.Event()
    room = threading.Semaphore(many)

    def ended() -> bool:
        return stop.is_set() or failed.is_set()

    def work() -> None:
        try:
            while room.acquire() and not ended():
                try:
                    question = waiting.get_nowait()
                except queue.Empty:
                    break
                done.put((question, patiently(lambda one=question: ask(one), retries, ended)))
        except _AbandonedError:
            pass
        except Exception as error:
            failed.set()
            done.put(error)
        finally:
            done.put(None)

    workers = min(many, len(questions))
    for number in range(workers):
        threading.Thread(target=work, name=f"oneseek-teacher-{number}", daemon=True).start()
    problem: Exception | None = None
    try:
        while workers:
            found = done.get()
            if found is None:
                workers -= 1
                room.release()
            elif isinstance(found, Exception):
                problem = problem or found
            else:
                yield found
                room.release()
    finally:
        failed.set()
        room.release(many)
    if problem is not None:
        raise problem


def patiently(ask: Callable[[], A], retries: int, ended: Callable[[], bool]) -> A:
    """Call `ask`, and repeat the call up to `retries` times if it fails with an error that may pass.

    The wait before a retry is the server's Retry-After. Without that header the wait doubles each time, from
    `FIRST_WAIT` to `LONGEST_WAIT`, minus a random part of up to a half. Raises the last `EndpointError`.
    Raises `_AbandonedError` if the function `ended` returns True during a wait, because the run has ended.
    """
    for attempt in range(retries + 1):
        try:
            return ask()
        except EndpointError as error:
            asked = error.retry_after
            if not error.passing or attempt == retries or (asked or 0) > LONGEST_ASKED:
                tried = f" (asked {attempt + 1} times)" if attempt else ""
                raise EndpointError(f"{error}{tried}", status=error.status) from error
            backoff = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0)
            _wait(backoff if asked is None else asked, ended)
    raise AssertionError("unreachable")


def _wait(seconds: float, ended: Callable[[], bool]) -> None:
    pause = threading.Event()
    while seconds > 0:
        if ended():
            raise _AbandonedError
        pause.wait(min(_LOOK, seconds))
        seconds -= _LOOK
