"""Tests the grammars of requests before they are used, in a separate process and with a time limit."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TypeAlias

from server.errors import EngineBusyError, EngineError
from server.grammar.text import GrammarRefusedError, bounded
from server.grammar.turns import FairTurns
from server.text.tokenizer import Tokenizer

SECONDS = 2.0
"""Maximum seconds to compile a grammar and to generate some tokens with it in the test."""
START_SECONDS = 60.0
"""Maximum seconds for the process that tests grammars to start."""
MAX_WAITING = 32
"""Maximum number of one client's grammars that are tested or wait. A client with more gets status 429."""
MAX_IN_ALL = 256
"""Maximum number of grammars, of all clients together, that are tested or wait."""
REMEMBERED = 512
"""Maximum number of grammars whose test results are remembered."""

GrammarCheck: TypeAlias = Callable[[str], Awaitable[None]]
"""Type of a function that tests a grammar for one client. See `Grammars.check`."""


class Grammars:
    """Tests whether the server can use a grammar. Call its methods on the event loop.

    One grammar is tested at a time, in a child process that is killed if a test takes too long. Clients can
    therefore keep at most one process busy. If several clients wait, they take turns.
    """

    def __init__(self, tokenizer: Tokenizer, *, seconds: float = SECONDS) -> None:
        self._tokenizer = tokenizer
        self._seconds = seconds
        self._verdicts: OrderedDict[bytes, str] = OrderedDict()
        self._turns = FairTurns()
        self._asked: Counter[str] = Counter()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="oneseek-grammars")
        self._child: SpawnProcess | None = None
        self._pipe: Connection[object, object] | None = None

    async def check(self, text: str, asker: str = "") -> None:
        """Test the grammar `text`. Grammars of the same client (`asker`) are tested one after another.

        Raises `GrammarRefusedError` if the server cannot use the grammar, and `EngineBusyError` if too many
        grammars wait.
        """
        key = hashlib.sha256(bounded(text).encode("utf-8", "surrogatepass")).digest()
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = await self._queue(key, text, asker)
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)
        if verdict:
            raise GrammarRefusedError(verdict)

    def close(self) -> None:
        """End the process that tests grammars. Idempotent."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._kill()

    async def _queue(self, key: bytes, text: str, asker: str) -> str:
        asked = self._asked[asker]
        if asked >= MAX_WAITING or self._asked.total() >= MAX_IN_ALL:
            raise EngineBusyError(
                f"the server is busy checking grammars, {asked} of them yours; retry shortly",
                retry_after=self._seconds * max(1, asked),
                gate="grammars",
            )
        self._asked[asker] += 1
        try:
            await self._turns.acquire(asker)
            loop = asyncio.get_running_loop()
            trial = loop.run_in_executor(self._worker, self._try, key, text)
            # A trial cannot be broken off, and holds the turn to its end.
            trial.add_done_callback(lambda _: self._turns.release())
            return await asyncio.shield(trial)
        finally:
            self._asked[asker] -= 1
            if not self._asked[asker]:
                del self._asked[asker]

    # In the worker's thread.

    def _try(self, key: bytes, text: str) -> str:
        known = self._verdicts.get(key)  # another request may have asked the same meanwhile
        if known is not None:
            return known
        pipe = self._open()
        try:
            pipe.send(text)
            if pipe.poll(self._seconds):
                return str(pipe.recv())
        except (EOFError, OSError):
            self._kill()
            raise GrammarRefusedError(
                "compiling the grammar takes too much memory or recursion; simplify the grammar or schema"
            ) from None
        self._kill()
        raise GrammarRefusedError(
            f"compiling the grammar takes longer than {self._seconds:g} s; simplify the grammar or schema"
        )

    def _open(self) -> Connection[object, object]:
        if self._pipe is not None and self._child is not None and self._child.is_alive():
            return self._pipe
        self._kill()
        from server.grammar.probe import answer_grammars

        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        tokenizer = self._tokenizer
        work = (theirs, tokenizer.definition, tokenizer.eos_ids)
        self._child = context.Process(target=answer_grammars, args=work, name="oneseek-grammars", daemon=True)
        self._child.start()
        theirs.close()
        try:
            if self._pipe.poll(START_SECONDS):
                self._pipe.recv()
                return self._pipe
        except (EOFError, OSError):
            pass
        self._kill()
        raise EngineError("the server's process that checks grammars did not start; retry shortly")

    def _kill(self) -> None:
        child, pipe, self._child, self._pipe = self._child, self._pipe, None, None
        if child is not None:
            child.kill()
            child.join(1)
        if pipe is not None:
            pipe.close()
