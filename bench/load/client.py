"""Send a request like a real client: read the stream as it arrives, and disconnect early if the plan
says so.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from bench.load.answers import SHORT, AnswerReader, read_voices
from bench.load.records import LoadProgress, PlannedRequest, RequestRecord

STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@dataclass(slots=True)
class StreamClient:
    """Sends the requests of one client process over one connection pool, and records the results."""

    http: aiohttp.ClientSession
    url: str
    start: float
    """Start of the run in seconds of `time.monotonic()`. Times in the records count from this moment."""
    progress: LoadProgress = field(default_factory=LoadProgress)
    _turns: dict[int, list[dict[str, Any]]] = field(default_factory=dict[int, list[dict[str, Any]]])
    _locks: dict[int, asyncio.Lock] = field(default_factory=dict[int, asyncio.Lock])

    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.monotonic() - self.start

    async def perform(self, asked: PlannedRequest, intended: float | None = None) -> RequestRecord:
        """Send `asked`, read its answer, and return the record. `intended` is when it should be sent, in
        seconds since the start of the run; None means now, as in a closed loop.
        """
        intended = self.now() if intended is None else intended
        self.progress += LoadProgress(running=1)
        if asked.session:
            async with self._locks.setdefault(asked.session, asyncio.Lock()):
                record = await self._send(asked, intended)
        else:
            record = await self._send(asked, intended)
        self.progress += LoadProgress(
            completed=record.outcome == "completed",
            cancelled=record.outcome == "cancelled",
            failed=record.outcome == "failed",
            tokens=record.completion_tokens,
            running=-1,
        )
        return record

    async def _send(self, asked: PlannedRequest, intended: float) -> RequestRecord:
        attempt = Attempt(asked, intended, self.now())
        body = asked.body | self._history(asked) | ({} if asked.check == "voices" else STREAMED)
        try:
            async with self.http.post(self.url + asked.path, json=body) as response:
                attempt.status = response.status
                attempt.answered_by = response.headers.get("X-OneSeek-Adapter", "")
                await self._read(response, attempt)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            attempt.fault = f"{type(error).__name__}: {error}"[:SHORT]
        record = attempt.record(self.now())
        if asked.session and record.outcome == "completed":
            said = {"role": "assistant", "content": attempt.reader.text}
            self._turns[asked.session] = [*body["messages"], said]
        return record

    def _history(self, asked: PlannedRequest) -> dict[str, Any]:
        earlier = self._turns.get(asked.session, []) if asked.session else []
        return {"messages": [*earlier, *asked.body["messages"]]} if earlier else {}

    async def _read(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        asked = attempt.asked
        if response.status != 200:
            attempt.fault = f"status {response.status}: {(await response.text())[:SHORT]}"
            return
        if asked.check == "voices":
            attempt.reader.usage, attempt.voice_words, attempt.fault = read_voices(
                await response.read(), asked
            )
            return
        async for piece in response.content.iter_any():
            events = attempt.reader.feed(piece)
            if events:
                attempt.arrivals.append(self.now())
                attempt.events.append(events)
            if asked.cancel_after and sum(attempt.events) >= asked.cancel_after:
                attempt.cancelled = True
                response.close()
                return
        attempt.fault = attempt.reader.check(asked)


@dataclass(slots=True)
class Attempt:
    """A request whose answer is being read, with what is known about it so far."""

    asked: PlannedRequest
    intended: float
    sent: float
    status: int = 0
    answered_by: str = ""
    arrivals: list[float] = field(default_factory=list[float])
    events: list[int] = field(default_factory=list[int])
    reader: AnswerReader = field(default_factory=AnswerReader)
    voice_words: int = 0
    cancelled: bool = False
    fault: str = ""

    def record(self, end: float) -> RequestRecord:
        """Return the record of the request, which ended at `end`."""
        usage, receipt = self.reader.usage, self.reader.receipt
        details = usage.prompt_tokens_details if usage else None
        made = usage.completion_tokens if usage else sum(self.events)
        return RequestRecord(
            number=self.asked.number,
            model=self.asked.model,
            language=self.asked.language,
            expects=self.asked.expects,
            outcome="failed" if self.fault else "cancelled" if self.cancelled else "completed",
            status=self.status,
            intended=self.intended,
            sent=self.sent,
            end=end,
            arrivals=tuple(self.arrivals),
            events=tuple(self.events),
            prompt_tokens=usage.prompt_tokens if usage else 0,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            completion_tokens=made,
            words=self.voice_words or len(self.reader.text.split()),
            answered_by=self.answered_by or self.reader.model,
            queue=receipt.queue_seconds if receipt else None,
            fault=self.fault,
        )
