"""One voice: what answers under one name, local or external, as a stream of deltas."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from routing.selection import is_automatic, split_base
from server.exchange import Exchange
from server.request import Deltas, Sampling, Timing, Usage
from server.serving.generation import Decision
from server.serving.receipt import Receipt, ReceiptDraft
from server.serving.resolution import Resolution
from server.serving.service import BaseService
from server.serving.voices.external import ExternalModel, ExternalQuestion

LOCAL, EXTERNAL = "local", "external"


class Voice(Protocol):
    """What answers."""

    @property
    def exchange(self) -> Exchange:
        """By which it is counted."""
        ...

    @property
    def asked(self) -> list[str]:
        """The names in the request that mean it."""
        ...

    @property
    def name(self) -> str:
        """Who answers, in full."""
        ...

    @property
    def kind(self) -> str:
        """`LOCAL` or `EXTERNAL`."""
        ...

    def answer(self) -> Deltas:
        """Its answer. Closing it ends the work; raises whatever keeps it from answering."""
        ...

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> Receipt | None:
        """The receipt of an answer that has ended; None if it was not made here."""
        ...


@dataclass(slots=True, eq=False)
class LocalVoice:
    """A base, an adapter or a blend of this server."""

    service: BaseService
    exchange: Exchange
    decision: Decision
    asked: list[str]
    prompt: tuple[int, ...] = ()
    """The question in its base's tokens; empty until it is known."""
    sampling: Sampling | None = None
    refusal: Exception | None = None
    """Why its base cannot take the question."""
    kind: str = field(default=LOCAL, init=False)

    @property
    def resolution(self) -> Resolution:
        """Who answers."""
        return self.decision.resolution

    @property
    def name(self) -> str:
        """See `Voice.name`."""
        return self.resolution.name

    @property
    def chosen_here(self) -> bool:
        """True if the server chose who answers, by language or because the alias's requests are divided."""
        automatic = all(is_automatic(split_base(name)[1]) for name in self.asked)
        return automatic or self.resolution.chosen is not None

    def same_as(self, other: LocalVoice) -> bool:
        """True if both are the same weights on the same base."""
        mine, theirs = self.resolution.adapter_mix, other.resolution.adapter_mix
        return self.service is other.service and mine == theirs

    async def answer(self) -> Deltas:
        """See `Voice.answer`."""
        if self.refusal is not None:
            raise self.refusal
        assert self.sampling is not None, "a voice answers once it has its prompt"
        generation, sampling = self.service.generation, self.sampling
        resolution = await generation.bring_in(self.exchange, self.decision)
        self.decision = Decision(resolution, self.decision.parts)
        deltas = generation.generate(self.exchange, resolution, [self.prompt], [sampling], 1)
        async with aclosing(deltas):
            async for items in deltas:
                yield items

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> Receipt:
        """See `Voice.complete_receipt`."""
        runtime = self.service.runtime
        draft = ReceiptDraft(self.exchange, self.resolution, runtime.name, runtime.info.base_digest)
        return draft.complete([usage], [timing])


@dataclass(slots=True, eq=False)
class ExternalVoice:
    """A service that the operator has configured. It takes no place in an engine."""

    model: ExternalModel
    exchange: Exchange
    question: ExternalQuestion
    asked: list[str]
    kind: str = field(default=EXTERNAL, init=False)

    @property
    def name(self) -> str:
        """See `Voice.name`."""
        return self.model.name

    async def answer(self) -> Deltas:
        """See `Voice.answer`."""
        async with aclosing(self.model.answer(self.question)) as deltas:
            async for delta in deltas:
                yield [(0, delta)]

    def complete_receipt(self, usage: Usage, timing: Timing | None) -> None:
        """None: what made the answer is not known here."""
        return


def seat(voices: list[LocalVoice], voice: LocalVoice) -> LocalVoice | None:
    """Add `voice`, unless its weights are among `voices`.

    If the server chose one of the two, they become one voice under both names. Otherwise the request names
    one voice twice: returns the voice that has it.
    """
    twin = next((one for one in voices if one.same_as(voice)), None)
    if twin is None:
        voices.append(voice)
        return None
    if not (twin.chosen_here or voice.chosen_here):
        return twin
    twin.asked += voice.asked
    return None
