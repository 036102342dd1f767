"""The scheduler against an exact simulation of the runner's memory, under whatever may happen to it."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from server.engines.embedded.scheduling.headroom import HEADROOM
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import SequenceState
from tests.server.engines.embedded.scheduling.simulation import (
    BLEND,
    EN,
    SV,
    Simulation,
    limits,
    outputs_are_right,
)

PROMPTS = [[7] * 40, [7] * 40 + [8] * 60, [9] * 100, [7] * 20 + [5] * 10, [3], [1, 2, 3]]

Action = Callable[[Simulation], None]


@st.composite
def arrivals(draw: st.DrawFn) -> Action:
    """One to four requests, often on from an earlier one or with a prompt that shares a part with others."""
    prompt = draw(st.sampled_from(PROMPTS)) + draw(st.lists(st.integers(0, 3), max_size=20))
    turn = draw(st.integers(0, 3))
    max_tokens = draw(st.integers(1, 100))
    stop_after = draw(st.just(max_tokens) | st.integers(1, max_tokens))
    adapter_mix = draw(st.sampled_from([(), EN, SV, BLEND]))
    salt = draw(st.sampled_from(["", "", "tenant"]))
    logprobs = draw(st.sampled_from([None, None, None, 0]))
    copies = draw(st.sampled_from([1, 1, 1, 4]))
    if logprobs is not None and draw(st.booleans()):
        max_tokens = stop_after = 0

    def arrive(simulation: Simulation) -> None:
        tokens = prompt
        if turn and simulation.finished:
            tokens = [*simulation.finished[-turn % len(simulation.finished)].tokens[:140], 4, 4]
        for _ in range(copies):
            simulation.add(
                tokens, max_tokens, adapter_mix, salt, stop_after=stop_after, prompt_logprobs=logprobs
            )

    return arrive


def cancel(number: int) -> Action:
    def act(simulation: Simulation) -> None:
        if simulation.live:
            victim = sorted(simulation.live)[number % len(simulation.live)]
            simulation.cancel(victim, reuse=number % 2 == 0)

    return act


def forget(digest: str) -> Action:
    return lambda simulation: simulation.scheduler.forget(digest)


def steps(count: int) -> Action:
    def act(simulation: Simulation) -> None:
        for _ in range(count):
            alive = bool(simulation.live)
            assert simulation.step().empty == (not alive)

    return act


ACTIONS = st.lists(
    st.one_of(
        arrivals(),
        arrivals(),
        st.integers(0, 20).map(cancel),
        st.sampled_from(["en", "sv"]).map(forget),
        st.integers(1, 40).map(steps),
        st.integers(1, 8).map(steps),
    ),
    min_size=6,
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
@given(bounds=BOUNDS, actions=ACTIONS)
def test_every_request_ends_with_its_own_tokens_whatever_happens(
    bounds: SchedulerLimits, actions: list[Action]
) -> None:
    simulation = Simulation(bounds)
    for act in actions:
        act(simulation)
    simulation.run()
    for earlier in list(simulation.finished):
        simulation.add(earlier.tokens[:250], 1, earlier.adapter_mix, earlier.request.cache_salt)
    simulation.run()
    event(f"preempted: {simulation.scheduler.preemptions > 0}")
    event(f"reused: {simulation.scheduler.prefix_hits > 0}")
    assert outputs_are_right(simulation)
    assert simulation.scheduler.idle
    assert simulation.scheduler.kv_cached == simulation.scheduler.kv_tokens


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    wanted=st.lists(st.tuples(st.integers(1, 60), st.integers(100, 190)), min_size=3, max_size=12),
    kv_tokens=st.integers(256, 640),
    spacing=st.integers(0, 10),
)
def test_too_little_memory_delays_but_never_thrashes(
    wanted: list[tuple[int, int]], kv_tokens: int, spacing: int
) -> None:
    simulation = Simulation(limits(max_num_seqs=6, kv_tokens=kv_tokens))
    for number, (prompt, max_tokens) in enumerate(wanted):
        simulation.add([number] * prompt, max_tokens, EN if number % 2 else SV)
        for _ in range(spacing):
            simulation.step()
    simulation.run()
    event(f"preempted: {simulation.scheduler.preemptions > 0}")
    assert outputs_are_right(simulation)
    assert len(simulation.finished) == len(wanted)
    assert max(simulation.preempted.values(), default=0) <= log2(256 / HEADROOM)
    useful = sum(len(sequence.tokens) for sequence in simulation.finished)
    assert simulation.computed <= 2.5 * useful


def test_the_youngest_makes_room_and_the_oldest_is_never_preempted() -> None:
    simulation = Simulation(limits(kv_tokens=320))
    first = simulation.add([1] * 60, 190)
    others = [simulation.add([n] * 30, 100) for n in (2, 3)]
    while not simulation.scheduler.preemptions:
        simulation.step()
    assert first.state is SequenceState.RUNNING
    assert others[1].state is SequenceState.WAITING
    assert others[1].generated > 0, "keeps what it generated"
    simulation.run()
    assert first.request.request_id not in simulation.preempted
    assert outputs_are_right(simulation)


def test_who_was_preempted_once_waits_until_it_can_stay() -> None:
    """Each of the older ones that ends frees too little for long; the youngest must not join each time."""
    simulation = Simulation(
        limits(
            max_num_seqs=9,
            rows=12,
            kv_tokens=2040,
            context=2048,
            max_num_batched_tokens=512,
            prefill_chunk=512,
        )
    )
    for number in range(8):
        simulation.add([number] * 200, 1500, EN, stop_after=50 * (number + 1))
    youngest = simulation.add([9] * 20, 1500, EN)
    simulation.run()
    assert simulation.preempted[youngest.request.request_id] == 1
    assert simulation.computed <= 1.1 * sum(len(sequence.tokens) for sequence in simulation.finished)


def test_a_preempted_request_goes_before_those_that_wait() -> None:
    simulation = Simulation(limits(kv_tokens=320, max_num_seqs=2))
    simulation.add([1] * 60, 190)
    preempted = simulation.add([2] * 60, 150)
    later = simulation.add([3] * 60, 20)
    while later.state is SequenceState.WAITING:
        simulation.step()
    assert simulation.scheduler.preemptions
    assert preempted.state is SequenceState.RUNNING


def test_a_long_prompt_does_not_stall_the_streams() -> None:
    simulation = Simulation(limits(max_num_seqs=4, context=2048, kv_tokens=8192))
    streams = [simulation.add([n], 200) for n in range(3)]
    for _ in range(5):
        simulation.step()
    simulation.add(list(range(1000)), 8)
    before = [stream.generated for stream in streams]
    for _ in range(20):
        step = simulation.step()
        assert len(step.decodes) == 3
        assert sum(chunk.length for chunk in step.chunks) == 32
    assert [stream.generated for stream in streams] == [count + 20 for count in before]


def test_alone_a_prompt_takes_the_whole_budget() -> None:
    simulation = Simulation(limits(max_num_batched_tokens=100))
    simulation.add([1] * 150, 8)
    assert [chunk.length for chunk in simulation.step().chunks] == [100]
    assert [chunk.length for chunk in simulation.step().chunks] == [50]


def test_several_prompts_share_a_step() -> None:
    simulation = Simulation(limits(max_num_batched_tokens=100))
    for number in range(4):
        simulation.add([number] * 30, 8)
    assert [chunk.length for chunk in simulation.step().chunks] == [30, 30, 30]


def test_prompts_progress_while_every_other_place_decodes() -> None:
    simulation = Simulation(limits(max_num_batched_tokens=4, prefill_chunk=64))
    for number in range(3):
        simulation.add([number], 200)
    for _ in range(3):
        simulation.step()
    late = simulation.add([9] * 40, 2)
    for _ in range(45):
        simulation.step()
    assert late.state is SequenceState.FINISHED


@pytest.mark.parametrize("when", ["waiting", "prefilling", "decoding"])
def test_cancelling_frees_the_place_at_once(when: str) -> None:
    simulation = Simulation(limits(max_num_seqs=1))
    sequence = simulation.add([1] * 150, 20)
    for _ in range({"waiting": 0, "prefilling": 1, "decoding": 5}[when]):
        simulation.step()
    simulation.cancel(sequence.request.request_id)
    assert (sequence.state, sequence.row) == (SequenceState.FINISHED, -1)
    assert simulation.scheduler.kv_cached == simulation.scheduler.kv_tokens
    other = simulation.add([2] * 20, 1)
    simulation.step()
    assert other.state is SequenceState.FINISHED


def test_a_faulty_request_leaves_nothing_for_reuse() -> None:
    simulation = Simulation(limits())
    faulty = simulation.add([1] * 60, 20)
    simulation.step()
    simulation.cancel(faulty.request.request_id, reuse=False)
    again = simulation.add([1] * 60, 1)
    simulation.run()
    assert again.cached == 0


def test_what_can_never_fit_is_refused() -> None:
    scheduler = Simulation(limits(kv_tokens=200)).scheduler
    assert scheduler.kv_capacity == 192
    simulation = Simulation(limits(kv_tokens=200))
    with pytest.raises(ValueError, match=r"257 .*256"):
        simulation.add([1] * 200, 57)
    with pytest.raises(ValueError, match=r"193 .*192"):
        simulation.add([1] * 180, 13)
    simulation.add([1] * 180, 12)
    simulation.run()


def test_misuse_is_refused() -> None:
    simulation = Simulation(limits())
    sequence = simulation.add([1] * 20, 4)
    with pytest.raises(ValueError, match="'r1'"):
        simulation.scheduler.add(sequence)
    with pytest.raises(ValueError, match="'r1'"):
        simulation.scheduler.finish(sequence)
    with pytest.raises(ValueError, match=r"'r1' .*waiting\b.* 0 of .*20"):
        simulation.scheduler.append(sequence, 1)
    step = simulation.scheduler.schedule()
    simulation.scheduler.advance(step)
    simulation.scheduler.append(sequence, 1)
    for _ in range(3):
        simulation.scheduler.advance(simulation.scheduler.schedule())
        simulation.scheduler.append(sequence, 1)
    simulation.scheduler.advance(simulation.scheduler.schedule())
    with pytest.raises(ValueError, match=r"'r1' .*max_tokens, 4"):
        simulation.scheduler.append(sequence, 1)


def test_nothing_to_do_is_an_empty_step() -> None:
    assert Scheduler(limits()).schedule().empty


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: limits(max_num_seqs=0), r"max_num_seqs\b.* 0\b"),
        (lambda: limits(prefill_chunk=0), r"prefill_chunk\b.* 0\b"),
        (lambda: limits(kv_tokens=15), r"kv_tokens\b.* 15\b"),
        (lambda: limits(rows=3), r"rows\b.* 3\b.*max_num_seqs\b.* 4\b"),
        (lambda: limits(max_num_batched_tokens=3), r"max_num_batched_tokens\b.* 3\b"),
    ],
)
def test_limits_name_the_field_and_its_value(build: Callable[[], SchedulerLimits], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
