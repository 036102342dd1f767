"""Send several requests at once, and send each again if its server is busy or silent."""

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
    """A signal that no more questions should be sent."""

    def is_set(self) -> bool:
        """True if asking should stop. It is called often, from several threads."""
        ...


FIRST_WAIT = 1.0
"""Seconds before the first retry, doubled for each further one."""
LONGEST_WAIT = 60.0
"""Maximum seconds between two retries, unless the server's Retry-After asks for more."""
LONGEST_ASKED = 600.0
"""Maximum seconds of a Retry-After that are waited for."""
_LOOK = 0.1


class _AbandonedError(Exception):
    """The run was stopped while a request was waiting to be sent again."""


def side_by_side(
    ask: Callable[[Q], A], questions: Sequence[Q], many: int, stop: Stop, *, retries: int
) -> Iterator[tuple[Q, A]]:
    """Yield each question with its answer as they arrive, with `many` requests in flight.

    After `stop`, no further request is sent, and those in flight are waited for. If `ask` fails for good, the
    others in flight are waited for too, and its error is raised last. If you leave the iteration early,
    threads end with their requests and do not keep the process alive. An answer counts as in flight until you
    ask for the next one. So if you store answers slowly, a kill loses at most `many` of them.
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
    """Call `ask`, and retry up to `retries` times if a retry may succeed.

    Waits as long as the server's Retry-After says. Otherwise the wait doubles each time, from `FIRST_WAIT` to
    `LONGEST_WAIT`, minus a random part of up to a half. Raises the last `EndpointError`.
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
