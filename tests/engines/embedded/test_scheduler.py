"""The scheduler against an exact simulation of the runner's memory, under whatever may happen to it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.engines.embedded.limits import Limits
from server.engines.embedded.scheduler import Scheduler
from server.engines.embedded.step import Sequence, State, Step
from server.request import GenerationRequest, Sampling, Voice

Cell = tuple[int, Voice, str]
EN: Voice = (("en", 1.0),)
SV: Voice = (("sv", 1.0),)
BLEND: Voice = (("en", 0.5), ("sv", 0.5))


def limits(**changes: int | bool) -> Limits:
    values: dict[str, int | bool] = {
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "rows": 8,
        "context": 256,
        "kv_tokens": 2048,
        "prefill_chunk": 32,
    }
    return Limits(**(values | changes))  # pyright: ignore[reportArgumentType] - one mapping of both types


class Simulation:
    """Rows as lists of (token, voice, salt), changed exactly as a runner's memory is; checks every step.

    The token that a position yields depends on everything before it, so a wrong row shows in the output.
    """

    def __init__(self, bounds: Limits, *, release_first: bool = True) -> None:
        self.limits = bounds
        self.scheduler = Scheduler(bounds)
        self.rows: list[list[Cell]] = [[] for _ in range(bounds.rows)]
        self.committed = [0] * bounds.rows
        self.release_first = release_first
        self.live: dict[str, Sequence] = {}
        self.finished: list[Sequence] = []
        self.steps = self.copied = self.computed = self.preempted = 0
        self.last = Step()
        self.number = 0

    def add(
        self,
        prompt: list[int],
        max_tokens: int = 8,
        voice: Voice = (),
        salt: str = "",
        *,
        stop_after: int | None = None,
        prompt_logprobs: int | None = None,
    ) -> Sequence:
        self.number += 1
        request = GenerationRequest(
            request_id=f"r{self.number}",
            prompt=tuple(prompt),
            sampling=Sampling(
                max_tokens=max_tokens, min_tokens=stop_after or 0, prompt_logprobs=prompt_logprobs
            ),
            voice=voice,
            cache_salt=salt,
            share=voice[0][0] if voice else "",
        )
        sequence = Sequence(request, 0.0)
        self.scheduler.add(sequence)
        self.live[request.request_id] = sequence
        return sequence

    def cancel(self, request_id: str) -> None:
        assert self.scheduler.cancel(request_id) is self.live.pop(request_id)
        assert self.scheduler.cancel(request_id) is None

    def _write(self, row: int, start: int, cells: list[Cell]) -> None:
        assert start <= len(self.rows[row]), "positions below are computed"
        self.rows[row][start : start + len(cells)] = cells
        self.committed[row] = max(self.committed[row], len(self.rows[row]))

    def _release(self, step: Step) -> None:
        for row in step.released:
            self.rows[row] = []
            self.committed[row] = 0

    def step(self) -> Step:
        before = {i: s.computed for i, s in self.live.items() if s.state is State.RUNNING}
        step = self.last = self.scheduler.schedule()
        self.steps += 1
        if self.release_first:
            self._release(step)
        for copy in step.copies:
            assert copy.length <= len(self.rows[copy.source])
            assert copy.source != copy.target
            source = self.rows[copy.source][: copy.length]
            self.rows[copy.target][: copy.length] = source
            self.committed[copy.target] = max(self.committed[copy.target], copy.length)
            self.copied += copy.length
        for row in {s.row for s in self.live.values() if s.row >= 0}:
            sequence = next(s for s in self.live.values() if s.row == row)
            del self.rows[row][sequence.computed :]
        self._check_budgets(step)
        for chunk in step.chunks:
            sequence = chunk.sequence
            assert chunk.start == sequence.computed
            assert chunk.length > 0
            tokens = sequence.tokens[chunk.start : chunk.start + chunk.length]
            self._write(sequence.row, chunk.start, [self._cell(sequence, t) for t in tokens])
            self.computed += chunk.length
        for sequence in step.decodes:
            assert sequence.pending == 1
            self._write(sequence.row, sequence.computed, [self._cell(sequence, sequence.tokens[-1])])
            self.computed += 1
        final = [chunk.sequence for chunk in step.chunks if chunk.final]
        if not self.release_first:
            self._release(step)
        self.scheduler.advance(step)
        self._check(before)
        for sequence in [*final, *step.decodes]:
            self._sample(sequence)
        return step

    @staticmethod
    def _cell(sequence: Sequence, token: int) -> Cell:
        return token, sequence.voice, sequence.request.cache_salt

    def _sample(self, sequence: Sequence) -> None:
        sampling = sequence.request.sampling
        if sampling.max_tokens:
            self.scheduler.append(sequence, hash(tuple(self.rows[sequence.row])) % 50_000)
        if sequence.generated >= (sampling.min_tokens or sampling.max_tokens):
            self.scheduler.finish(sequence)
            del self.live[sequence.request.request_id]
            self.finished.append(sequence)

    def _check_budgets(self, step: Step) -> None:
        computed = len(step.decodes) + sum(chunk.length for chunk in step.chunks)
        assert computed <= self.limits.max_num_batched_tokens
        if step.decodes and not any(len(s.tokens) - s.computed > 1 for s in step.decodes):
            joined = sum(1 for s in step.decodes if not s.generated)
            if len(step.decodes) > joined:
                assert sum(chunk.length for chunk in step.chunks) <= self.limits.prefill_chunk
        assert [s.row for s in step.decodes] == sorted({s.row for s in step.decodes})
        assert len({c.sequence.row for c in step.chunks} | {s.row for s in step.decodes}) == len(
            step.chunks
        ) + len(step.decodes)
        assert not {s.row for s in self.live.values()} & set(step.released)
        assert not {r for c in step.copies for r in (c.source, c.target)} & set(step.released)

    def _check(self, before: dict[str, int]) -> None:
        running = [s for s in self.live.values() if s.state is State.RUNNING]
        assert len(running) <= self.limits.max_num_seqs
        assert len({s.row for s in running}) == len(running)
        for sequence in self.live.values():
            if sequence.state is State.RUNNING:
                cells = self.rows[sequence.row][: sequence.computed]
                assert cells == [self._cell(sequence, t) for t in sequence.tokens[: sequence.computed]]
            else:
                assert (sequence.row, sequence.computed) == (-1, 0)
        pages = sum(-(-tokens // 16) for tokens in self.committed)
        if self.release_first:
            assert pages * 16 <= self.scheduler.kv_tokens
        assert self.scheduler.kv_tokens <= self.scheduler.kv_capacity <= self.limits.kv_tokens
        assert sum(self.scheduler.running_by_share.values()) == len(running)
        assert sum(self.scheduler.waiting_by_share.values()) == len(self.live) - len(running)
        assert self.scheduler.num_waiting == len(self.live) - len(running)
        if running:
            assert any(s.computed > before.get(s.request.request_id, 0) for s in running), "progress"

    def run(self, steps: int = 100_000) -> None:
        """Until nothing is left; a step that does nothing while something lives is a deadlock."""
        for _ in range(steps):
            if not self.live:
                return
            assert not self.step().empty, "deadlock"
        raise AssertionError("does not end")


def expected(sequence: Sequence) -> list[int]:
    """What a sequence generates alone."""
    cells: list[Cell] = [(t, sequence.voice, sequence.request.cache_salt) for t in sequence.request.prompt]
    tokens: list[int] = []
    sampling = sequence.request.sampling
    for _ in range(sampling.min_tokens or sampling.max_tokens):
        token = hash(tuple(cells)) % 50_000
        tokens.append(token)
        cells.append((token, sequence.voice, sequence.request.cache_salt))
    return tokens


def outputs_are_right(simulation: Simulation) -> bool:
    return all(s.tokens[s.prompt_length :] == expected(s) for s in simulation.finished)


PROMPTS = [[7] * 40, [7] * 40 + [8] * 60, [9] * 100, [7] * 20 + [5] * 10, [3], [1, 2, 3]]

Event = Callable[[Simulation], None]


@st.composite
def arrivals(draw: st.DrawFn) -> Event:
    prompt = list(draw(st.sampled_from(PROMPTS))) + draw(st.lists(st.integers(0, 3), max_size=20))
    turns = draw(st.integers(0, 3))
    max_tokens = draw(st.integers(1, 100))
    stop_after = draw(st.integers(1, max_tokens))
    voice = draw(st.sampled_from([(), EN, SV, BLEND]))
    salt = draw(st.sampled_from(["", "", "tenant"]))
    logprobs = draw(st.sampled_from([None, None, None, 0]))
    copies = draw(st.sampled_from([1, 1, 1, 4]))
    if logprobs is not None and draw(st.booleans()):
        max_tokens = stop_after = 0

    def arrive(simulation: Simulation) -> None:
        base = prompt
        if turns and simulation.finished:
            base = [*simulation.finished[-turns % len(simulation.finished)].tokens[:148], 4, 4]
        for _ in range(copies):
            simulation.add(base, max_tokens, voice, salt, stop_after=stop_after, prompt_logprobs=logprobs)

    return arrive


def cancel(number: int) -> Event:
    def act(simulation: Simulation) -> None:
        if simulation.live:
            simulation.cancel(sorted(simulation.live)[number % len(simulation.live)])

    return act


def drop(digest: str) -> Event:
    def act(simulation: Simulation) -> None:
        simulation.scheduler.forget(digest)

    return act


def steps(count: int) -> Event:
    def act(simulation: Simulation) -> None:
        for _ in range(count):
            step = simulation.step()
            assert not step.empty or not simulation.live

    return act


EVENTS = st.lists(
    st.one_of(
        arrivals(),
        arrivals(),
        st.integers(0, 20).map(cancel),
        st.sampled_from(["en", "sv"]).map(drop),
        st.integers(1, 40).map(steps),
        st.integers(1, 8).map(steps),
    ),
    max_size=30,
)

BOUNDS = st.builds(
    limits,
    max_num_seqs=st.integers(1, 6),
    rows=st.integers(6, 10),
    max_num_batched_tokens=st.integers(6, 80),
    kv_tokens=st.sampled_from([256, 272, 400, 700, 2048, 4096]),
    prefill_chunk=st.integers(1, 64),
    prefix_caching=st.sampled_from([True, True, True, False]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bounds=BOUNDS, events=EVENTS, release_first=st.booleans())
def test_every_request_ends_with_its_own_tokens_whatever_happens(
    bounds: Limits, events: list[Event], release_first: bool
) -> None:
    simulation = Simulation(bounds, release_first=release_first)
    for event in events:
        event(simulation)
    simulation.run()
    assert outputs_are_right(simulation)
    assert simulation.scheduler.idle
    assert simulation.scheduler.kv_cached == simulation.scheduler.kv_tokens
