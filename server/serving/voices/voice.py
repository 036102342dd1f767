"""Defines voices: models that answer one question together. Each voice is a model of this server or an
external service.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from routing.selection import is_automatic, split_base
from server.exchange import AnswerRecord, Exchange
from server.request import Delta, Deltas, Sampling, Timing, Usage
from server.serving.generation import Decision
from server.serving.kept import end_record, keep_content
from server.serving.receipt import Receipt, ReceiptDraft
from server.serving.resolution import Resolution
from server.serving.service import BaseService
from server.serving.voices.external import ExternalModel, ExternalQuestion

LOCAL, EXTERNAL = "local", "external"
_UNTRACED: Mapping[str, str] = {}


class Voice(Protocol):
    """Interface of a voice: a model that answers a question together with others."""

    @property
    def exchange(self) -> Exchange:
        """The exchange that records this model's answer, for metrics and logs."""
        ...

    @property
    def asked(self) -> list[str]:
        """The names in the request's `models` that stand for this model."""
        ...

    @property
    def name(self) -> str:
        """The model's full name."""
        ...

    @property
    def kind(self) -> str:
        """`LOCAL` for a model of this server, `EXTERNAL` for an external service."""
        ...

    def answer(self) -> Deltas:
        """Stream the model's answer. Closing the stream aborts the answer. Raises the error that prevents the
        answer.
        """
        ...

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> Receipt | None:
        """Return the receipt of a finished answer (which adapter answered, and why); None for an external
        service.
        """
        ...


@dataclass(slots=True, eq=False)
class LocalVoice:
    """A voice that is a base, an adapter or a blend of this server."""

    service: BaseService
    exchange: Exchange
    decision: Decision
    asked: list[str]
    prompt: tuple[int, ...] = ()
    """Token ids of the question; empty until it is tokenized."""
    sampling: Sampling | None = None
    refusal: Exception | None = None
    """The error with which this voice fails, if the model's base cannot answer the question; else None."""
    kind: str = field(default=LOCAL, init=False)

    @property
    def resolution(self) -> Resolution:
        """The resolved routing decision: which base and adapter answer."""
        return self.decision.resolution

    @property
    def name(self) -> str:
        """The full name of the model that answers. See `Voice.name`."""
        return self.resolution.name

    @property
    def chosen_here(self) -> bool:
        """True if the server chose the adapter, by language or because the alias's requests are divided
        between versions.
        """
        automatic = all(is_automatic(split_base(name)[1]) for name in self.asked)
        return automatic or self.resolution.chosen is not None

    def same_as(self, other: LocalVoice) -> bool:
        """True if this voice and `other` have the same weights on the same base."""
        mine, theirs = self.resolution.adapter_mix, other.resolution.adapter_mix
        return self.service is other.service and mine == theirs

    async def answer(self) -> Deltas:
        """Stream the answer of this model. Loads its base if that is not in memory. See `Voice.answer`."""
        own = self.exchange
        if self.refusal is not None:
            if own.held is not None:
                own.held.close()  # shared with voices of the same base only, which all fail likewise
            raise self.refusal
        assert self.sampling is not None, "answer() was called before the prompt was set"
        generation, sampling = self.service.generation, self.sampling
        late = own.held is None
        try:
            if late:
                await generation.ready()
                # Nothing may be awaited in between: this place is what keeps the base loaded.
                generation.gate.hold(own, self.resolution.share, 1)
            resolution = await generation.bring_in(own, self.decision)
            self.decision = Decision(resolution, self.decision.parts)
            deltas = generation.generate(own, resolution, [self.prompt], [sampling], 1)
            async with aclosing(deltas):
                async for items in deltas:
                    yield items
        finally:
            if own.lease is not None:
                own.lease.close()
            if late and own.held is not None:
                own.held.close()

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> Receipt:
        """Return the receipt of the finished answer. See `Voice.complete_receipt`."""
        runtime = self.service.runtime
        draft = ReceiptDraft(self.exchange, self.resolution, runtime.name, runtime.info.base_digest)
        return draft.complete([usage], [timing])


@dataclass(slots=True, eq=False)
class ExternalVoice:
    """A voice that is a configured external service. It takes no place in an engine's queue."""

    model: ExternalModel
    exchange: Exchange
    question: ExternalQuestion
    asked: list[str]
    kind: str = field(default=EXTERNAL, init=False)

    @property
    def name(self) -> str:
        """Name of the external service. See `Voice.name`."""
        return self.model.name

    def answer(self) -> Deltas:
        """Stream the answer of the external service. See `Voice.answer`."""
        content = self.exchange.content
        return self._answer() if content is None else keep_content(self._answer(), content)

    async def _answer(self) -> Deltas:
        record = AnswerRecord()
        self.exchange.answers.append(record)
        last: Delta | None = None
        try:
            with self._traced() as headers:
                async with aclosing(self.model.answer(self.question, headers)) as deltas:
                    async for last in deltas:
                        record.first = record.first or time.perf_counter()
                        yield [(0, last)]
        finally:
            end_record(record, last)

    def _traced(self) -> AbstractContextManager[Mapping[str, str]]:
        """Return a context that yields the HTTP headers which pass the request's trace on to the service; no
        headers if the request is not traced.
        """
        trace = self.exchange.trace
        return nullcontext(_UNTRACED) if trace is None else trace.call(self.model.name)

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> None:
        """Return None, since only answers of this server's own models have receipts."""
        return


def seat(voices: list[LocalVoice], voice: LocalVoice) -> LocalVoice | None:
    """Add `voice` to `voices`, unless a voice with the same weights is there already.

    If the server chose the adapter of one of these two voices, they become one voice with both names.
    Otherwise the request names the same model twice, and the voice that is there already is returned.
    """
    twin = next((one for one in voices if one.same_as(voice)), None)
    if twin is None:
        voices.append(voice)
        return None
    if not (twin.chosen_here or voice.chosen_here):
        return twin
    twin.asked += voice.asked
    return None
