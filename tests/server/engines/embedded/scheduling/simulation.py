"""An exact simulation of a runner's memory and of the engine's loop, which checks every step it is given."""

from __future__ import annotations

from collections import Counter
from functools import cache
from zlib import crc32

from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import Sequence, SequenceState, Step
from server.request import AdapterMix, GenerationRequest, Sampling

Cell = int
"""A token, and in the bits above it a number for the voice and salt of its keys and values."""
EN: AdapterMix = (("en", 1.0),)
SV: AdapterMix = (("sv", 1.0),)
BLEND: AdapterMix = (("en", 0.5), ("sv", 0.5))


def limits(
    *,
    max_num_seqs: int = 4,
    max_num_batched_tokens: int = 64,
    rows: int = 8,
    context: int = 256,
    kv_tokens: int = 2048,
    prefill_chunk: int = 32,
    prefix_caching: bool = True,
) -> SchedulerLimits:
    return SchedulerLimits(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        rows=rows,
        context=context,
        kv_tokens=kv_tokens,
        prefill_chunk=prefill_chunk,
        prefix_caching=prefix_caching,
    )


def cells(sequence: Sequence, tokens: list[int]) -> list[Cell]:
    owner = _number(sequence.adapter_mix, sequence.request.cache_salt) << 20
    return [owner | token for token in tokens]


@cache
def _number(adapter_mix: AdapterMix, salt: str) -> int:
    return crc32(repr((adapter_mix, salt)).encode())


def sample(contents: list[Cell]) -> int:
    """The token after `contents`. It depends on all of them, so a wrong row shows in the output."""
    return hash(tuple(contents)) % 50_000


class Simulation:
    """Rows as lists of cells, changed as a runner's memory is, by an engine's loop over a `Scheduler`."""

    def __init__(self, bounds: SchedulerLimits) -> None:
        self.limits = bounds
        self.scheduler = Scheduler(bounds)
        self.rows: list[list[Cell]] = [[] for _ in range(bounds.rows)]
        self.live: dict[str, Sequence] = {}
        self.finished: list[Sequence] = []
        self.steps = self.copies = self.copied = self.computed = self.number = 0
        self.served: Counter[str] = Counter()
        """Prompt tokens computed once and output tokens twice, by share; nothing for what is recomputed."""
        self.preempted: Counter[str] = Counter()
        """Times each was put back for want of memory."""
        self.made_way: Counter[str] = Counter()
        """Times each was put back for another share."""

    def add(
        self,
        prompt: list[int],
        max_tokens: int = 8,
        adapter_mix: AdapterMix = (),
        salt: str = "",
        *,
        stop_after: int | None = None,
        prompt_logprobs: int | None = None,
        tenant: str = "",
        background: bool = False,
    ) -> Sequence:
        """Queue a request that ends after `stop_after` tokens, or after `max_tokens`."""
        self.number += 1
        request = GenerationRequest(
            request_id=f"r{self.number}",
            prompt=tuple(prompt),
            sampling=Sampling(
                max_tokens=max_tokens, min_tokens=stop_after or max_tokens, prompt_logprobs=prompt_logprobs
            ),
            adapter_mix=adapter_mix,
            cache_salt=salt,
            share=adapter_mix[0][0] if adapter_mix else "",
            tenant=tenant,
            background=background,
        )
        sequence = Sequence(request, 0.0)
        self.scheduler.add(sequence)
        self.live[request.request_id] = sequence
        return sequence

    def cancel(self, request_id: str, *, reuse: bool = True) -> None:
        assert self.scheduler.cancel(request_id, reuse=reuse) is self.live.pop(request_id)
        assert self.scheduler.cancel(request_id) is None

    def run(self, steps: int = 100_000) -> None:
        """Until nothing is left; a step that does nothing while something lives is a deadlock."""
        for _ in range(steps):
            if not self.live:
                return
            assert not self.step().empty, "deadlock"
        raise AssertionError("does not end")

    def step(self) -> Step:
        running = {s for s in self.live.values() if s.state is SequenceState.RUNNING}
        squeezed = self.scheduler.preemptions
        step = self.scheduler.schedule()
        self.steps += 1
        put_back = [s.request.request_id for s in running if s.state is SequenceState.WAITING]
        squeezed = self.scheduler.preemptions - squeezed
        (self.preempted if squeezed else self.made_way).update(put_back)
        self._check_step(step, running)
        if squeezed:
            assert running.issuperset([*(c.sequence for c in step.chunks), *step.decodes]), "nobody joins"
        for row in step.released:
            self.rows[row] = []
        for copy in step.copies:
            assert copy.length <= len(self.rows[copy.source])
            self.rows[copy.target][: copy.length] = self.rows[copy.source][: copy.length]
            self.copies += 1
            self.copied += copy.length
        for chunk in step.chunks:
            self._compute(chunk.sequence, chunk.length)
        for sequence in step.decodes:
            self._compute(sequence, 1)
        chosen = [chunk.sequence for chunk in step.chunks if chunk.final] + list(step.decodes)
        self.scheduler.advance(step)
        self._check_rows()
        for sequence in chosen:
            self._sample(sequence)
        return step

    def _compute(self, sequence: Sequence, length: int) -> None:
        start, row = sequence.computed, self.rows[sequence.row]
        share = sequence.request.share
        assert start <= len(row), "positions below are computed"
        row[start : start + length] = cells(sequence, sequence.tokens[start : start + length])
        self.computed += length
        if sequence.request.request_id not in self.preempted + self.made_way:
            self.served[share] += max(0, min(start + length, sequence.prompt_length) - start)

    def _sample(self, sequence: Sequence) -> None:
        if sequence.request.sampling.max_tokens:
            self.scheduler.append(sequence, sample(self.rows[sequence.row][: sequence.computed]))
            self.served[sequence.request.share] += 2
        if sequence.generated >= sequence.request.sampling.min_tokens:
            self.scheduler.finish(sequence)
            del self.live[sequence.request.request_id]
            self.finished.append(sequence)

    def _check_step(self, step: Step, running: set[Sequence]) -> None:
        rows = [s.row for s in step.decodes]
        assert rows == sorted(rows)
        rows += [c.sequence.row for c in step.chunks]
        assert len(set(rows)) == len(rows), "a row is computed once"
        assert all(s.pending == 1 for s in step.decodes)
        assert all(c.start == c.sequence.computed and 0 < c.length <= c.sequence.pending for c in step.chunks)
        prompts = sum(chunk.length for chunk in step.chunks)
        assert prompts + len(step.decodes) <= self.limits.max_num_batched_tokens
        if running & set(step.decodes):
            assert prompts <= self.limits.prefill_chunk

    def _check_rows(self) -> None:
        running = [s for s in self.live.values() if s.state is SequenceState.RUNNING]
        assert len({s.row for s in running}) == len(running) <= self.limits.max_num_seqs
        for sequence in self.live.values():
            if sequence.state is SequenceState.RUNNING:
                computed = sequence.tokens[: sequence.computed]
                assert self.rows[sequence.row][: sequence.computed] == cells(sequence, computed)
            else:
                assert (sequence.row, sequence.computed) == (-1, 0)
        scheduler = self.scheduler
        held = sum(-(-len(row) // 16) * 16 for row in self.rows)
        assert held <= scheduler.kv_tokens <= scheduler.kv_capacity <= self.limits.kv_tokens
        assert sum(scheduler.running_by_share.values()) == len(running)
        assert sum(scheduler.waiting_by_share.values()) == len(self.live) - len(running)
        assert scheduler.preemptions == sum(self.preempted.values())
        assert scheduler.made_way == sum(self.made_way.values())


def alone(sequence: Sequence) -> list[int]:
    """What a sequence generates when nothing else is there."""
    contents, prompt = cells(sequence, sequence.tokens), sequence.prompt_length
    sampling = sequence.request.sampling
    return [sample(contents[: prompt + i]) for i in range(min(sampling.min_tokens, sampling.max_tokens))]


def outputs_are_right(simulation: Simulation) -> bool:
    return all(s.tokens[s.prompt_length :] == alone(s) for s in simulation.finished)
