"""A fair share between keys and adapters: rows for each, then served tokens."""

from __future__ import annotations

from collections import Counter

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from server.engines.embedded.scheduling.fairness import PATIENCE, QUANTUM, RECOMPUTED
from server.engines.embedded.scheduling.step import SequenceState
from server.request import AdapterMix, Share
from tests.server.engines.embedded.scheduling.simulation import EN, SV, Simulation, limits, outputs_are_right


def distinct(number: int, length: int) -> list[int]:
    """A prompt that shares nothing with others."""
    return [10_000 + number, *range(length - 1)]


def rows_of(simulation: Simulation) -> Counter[Share]:
    running = (s for s in simulation.live.values() if s.state is SequenceState.RUNNING)
    return Counter(sequence.request.fair_share for sequence in running)


def waiting_of(simulation: Simulation) -> Counter[Share]:
    waiting = (s for s in simulation.live.values() if s.state is SequenceState.WAITING)
    return Counter(sequence.request.fair_share for sequence in waiting)


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(
    sizes=st.tuples(
        st.tuples(st.integers(1, 150), st.integers(1, 60)), st.tuples(st.integers(1, 150), st.integers(1, 60))
    ),
    max_num_seqs=st.integers(2, 6),
)
def test_two_shares_that_always_wait_run_alike(
    sizes: tuple[tuple[int, int], tuple[int, int]], max_num_seqs: int
) -> None:
    """Whatever they ask for, each has its half of the rows in every step, and nobody has to make way."""
    bounds = limits(
        max_num_seqs=max_num_seqs, rows=12, kv_tokens=4096, max_num_batched_tokens=1024, prefill_chunk=1024
    )
    simulation, number = Simulation(bounds), 0
    for _ in range(200):
        for adapter_mix, (prompt, max_tokens) in zip((EN, SV), sizes, strict=True):
            number += 1
            simulation.add(distinct(number, prompt), max_tokens, adapter_mix)
    for _ in range(60):
        step = simulation.step()
        if len(waiting_of(simulation)) < 2:
            break
        worked = Counter(s.request.share for s in (*(c.sequence for c in step.chunks), *step.decodes))
        assert min(worked["en"], worked["sv"]) >= max_num_seqs // 2
    assert not simulation.made_way


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(
    crowds=st.lists(
        st.tuples(st.sampled_from(["", "a", "b"]), st.sampled_from([EN, SV]), st.integers(1, 12)),
        min_size=1,
        max_size=5,
        unique_by=lambda crowd: (crowd[0], crowd[1]),
    ),
    wanted=st.integers(1, 8),
    max_num_seqs=st.integers(2, 8),
    early=st.integers(0, 40),
)
def test_whoever_comes_has_its_part_of_the_rows_at_once(
    crowds: list[tuple[str, AdapterMix, int]], wanted: int, max_num_seqs: int, early: int
) -> None:
    """A row in each step until it has its part; no row idles while anyone waits; every text is right."""
    bounds = limits(
        max_num_seqs=max_num_seqs, rows=3 * max_num_seqs, kv_tokens=3 * max_num_seqs * 256,
        max_num_batched_tokens=512, prefill_chunk=512,
    )  # fmt: skip
    simulation, number = Simulation(bounds), 0
    for tenant, adapter_mix, count in crowds:
        for _ in range(count):
            number += 1
            simulation.add(distinct(number, 20), 200, adapter_mix, tenant, tenant=tenant)
    for _ in range(early):
        simulation.step()
    mine = Share("new", "")
    for _ in range(wanted):
        number += 1
        simulation.add(distinct(number, 20), 30, (), "new", tenant="new")
    part = max(1, max_num_seqs // len({*rows_of(simulation), *waiting_of(simulation)}))
    for step in range(1, 60):
        worked = simulation.step()
        rows, waiting = rows_of(simulation), waiting_of(simulation)
        assert not waiting or len(worked.chunks) + len(worked.decodes) == max_num_seqs, "no row idles"
        done = sum(s.request.tenant == "new" for s in simulation.finished)
        if len({*rows, *waiting}) <= max_num_seqs and mine in waiting:
            assert rows[mine] + done >= min(step - 1, part, wanted)
    simulation.run()
    assert outputs_are_right(simulation)
    assert mine in {s.request.fair_share for s in simulation.finished}


@settings(max_examples=30, deadline=None, phases=[Phase.generate])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 100), st.integers(60, 150)), min_size=2, max_size=8),
    kv_tokens=st.sampled_from([256, 320, 640]),
    max_num_seqs=st.integers(1, 4),
)
def test_with_little_memory_or_few_rows_nobody_waits_for_a_long_stream_to_end(
    sizes: list[tuple[int, int]], kv_tokens: int, max_num_seqs: int
) -> None:
    simulation = Simulation(
        limits(max_num_seqs=max_num_seqs, kv_tokens=kv_tokens, max_num_batched_tokens=64, prefill_chunk=64)
    )
    for number, (prompt, tokens) in enumerate(sizes):
        simulation.add(distinct(number, prompt), tokens, EN, "crowd", tenant="crowd")
    for _ in range(20):
        simulation.step()
    newcomer = simulation.add(distinct(99, 100), 20, SV, tenant="new")
    simulation.run()
    assert outputs_are_right(simulation)
    ends = [s.request.request_id for s in simulation.finished]
    # Those that were nearly done may end first; a whole round of the crowd never does.
    assert ends.index(newcomer.request.request_id) <= max(2, 2 * max_num_seqs)
    useful = sum(len(sequence.tokens) for sequence in simulation.finished)
    assert simulation.computed <= 3 * useful + 4 * 256


def test_more_shares_than_rows_take_turns() -> None:
    """Two rows, five tenants with endless streams: each runs again and again, none far behind."""
    simulation = Simulation(limits(max_num_seqs=2, rows=8, context=4096, kv_tokens=8 * 4096))
    streams = [simulation.add(distinct(n, 20), 4000, tenant=f"t{n}") for n in range(5)]
    for _ in range(2000):
        simulation.step()
    made = [stream.generated for stream in streams]
    assert min(made) > 0
    assert max(made) - min(made) <= 2 * QUANTUM
    assert simulation.computed <= 1.05 * sum(len(stream.tokens) for stream in streams)


def test_a_flood_in_the_background_counts_for_nobody() -> None:
    simulation = Simulation(limits(max_num_seqs=4, rows=12))
    for number in range(4):
        simulation.add(distinct(number, 20), 200, EN, background=True)
    simulation.step()
    asked = [simulation.add(distinct(10 + number, 20), 50, SV) for number in range(4)]
    for _ in range(5):
        simulation.step()
    assert all(sequence.state is SequenceState.RUNNING for sequence in asked)


def test_who_makes_way_is_of_the_share_with_the_most_and_its_newest() -> None:
    simulation = Simulation(limits(max_num_seqs=6, rows=18, kv_tokens=18 * 256))
    big = [simulation.add(distinct(n, 20), 200, tenant="big") for n in range(4)]
    small = [simulation.add(distinct(10 + n, 20), 200, tenant="small") for n in range(2)]
    for _ in range(3):
        simulation.step()
    newcomer = simulation.add(distinct(20, 20), 20, tenant="new")
    simulation.step()
    simulation.step()
    assert newcomer.state is SequenceState.RUNNING
    assert [s.request.request_id for s in (*big, *small) if s.state is SequenceState.WAITING] == [
        big[-1].request.request_id
    ]


def test_a_sequence_that_made_way_goes_on_from_its_prefix() -> None:
    simulation = Simulation(limits(max_num_seqs=2, rows=6, kv_tokens=6 * 256))
    crowd = [simulation.add(distinct(n, 60), 150, EN) for n in range(2)]
    for _ in range(30):
        simulation.step()
    simulation.add(distinct(9, 20), 10, SV)
    simulation.run()
    assert simulation.made_way == {crowd[1].request.request_id: 1}
    assert outputs_are_right(simulation)
    assert simulation.computed <= sum(len(s.tokens) for s in simulation.finished) + 2


def test_making_way_does_not_become_the_work() -> None:
    """A client of tiny requests, too rare to keep a slot for, beside long streams that lose their cache."""
    simulation = Simulation(
        limits(max_num_seqs=2, rows=2, kv_tokens=512, max_num_batched_tokens=64, prefix_caching=False)
    )
    for number in range(4):
        simulation.add(distinct(number, 150), 60, EN, tenant="long")
    number = 100
    for step in range(400):
        if step % (PATIENCE + 2) == 0:
            number += 1
            simulation.add(distinct(number, 20), 1, SV, tenant="tiny")
        simulation.step()
    simulation.run()
    useful = sum(len(sequence.tokens) for sequence in simulation.finished)
    assert simulation.computed <= (1 + 2 * RECOMPUTED) * useful + 4 * 256


def test_one_busy_adapter_starves_no_other() -> None:
    simulation = Simulation(limits(max_num_seqs=8))
    for number in range(1000):
        simulation.add(distinct(number, 30), 20, EN)
    for _ in range(100):
        simulation.step()
    few = [simulation.add(distinct(2000 + number, 30), 20, SV) for number in range(5)]
    already = len(simulation.finished)
    while any(sequence.state is not SequenceState.FINISHED for sequence in few):
        simulation.step()
    assert len(simulation.finished) - already <= 5 + 2 * 8


def test_idling_earns_no_credit() -> None:
    simulation = Simulation(limits())
    for number in range(300):
        simulation.add(distinct(number, 20), 20, EN)
    simulation.add(distinct(900, 20), 20, SV)
    for _ in range(1000):
        simulation.step()
    assert simulation.served["en"] > 10_000
    before = simulation.served.copy()
    for number in range(300):
        simulation.add(distinct(1000 + number, 20), 20, SV)
    for _ in range(400):
        simulation.step()
    gained = {share: simulation.served[share] - before[share] for share in ("en", "sv")}
    assert 0.8 < gained["en"] / gained["sv"] < 1.25


def test_serving_alone_is_not_held_against_a_share_afterwards() -> None:
    simulation = Simulation(limits())
    for number in range(100):
        simulation.add(distinct(number, 20), 20, EN)
    simulation.run()
    before = simulation.served.copy()
    for number in range(100):
        simulation.add(distinct(1000 + number, 20), 20, SV)
        simulation.add(distinct(2000 + number, 20), 20, EN)
    for _ in range(300):
        simulation.step()
    gained = {share: simulation.served[share] - before[share] for share in ("en", "sv")}
    assert 0.8 < gained["en"] / gained["sv"] < 1.25


def test_cached_tokens_are_not_paid_for() -> None:
    """A share whose prompts are found in the cache is served more requests for the same tokens."""
    simulation = Simulation(limits(max_num_seqs=1))
    for number in range(60):
        simulation.add([*range(120), number], 4, EN)
        simulation.add(distinct(1000 + number, 121), 4, SV)
    while simulation.scheduler.waiting_by_share.keys() >= {"en", "sv"}:
        simulation.step()
    done = {"en": 0, "sv": 0}
    for sequence in simulation.finished:
        done[sequence.request.share] += 1
    assert done["en"] > 5 * done["sv"]


def test_what_was_paid_for_and_not_computed_is_given_back() -> None:
    simulation = Simulation(limits(max_num_seqs=1, context=2048, max_num_batched_tokens=16))
    cancelled = simulation.add(distinct(0, 1500), 1, EN)
    first = simulation.add(distinct(1, 200), 1, SV)
    last = simulation.add(distinct(2, 100), 1, SV)
    simulation.step()
    simulation.cancel(cancelled.request.request_id)
    again = simulation.add(distinct(3, 100), 1, EN)
    simulation.run()
    assert simulation.finished == [first, again, last]


def test_within_a_share_first_come_first_served() -> None:
    simulation = Simulation(limits(max_num_seqs=2))
    for number in range(20):
        simulation.add(distinct(number, 10), 5, (EN, SV)[number % 2])
    simulation.run()
    for share in ("en", "sv"):
        ids = [s.request.request_id for s in simulation.finished if s.request.share == share]
        assert ids == sorted(ids, key=lambda request_id: int(request_id[1:]))
    assert outputs_are_right(simulation)


def test_a_newcomers_prompt_goes_before_the_crowds_that_were_begun() -> None:
    simulation = Simulation(
        limits(max_num_seqs=4, rows=12, context=2048, kv_tokens=12 * 2048, max_num_batched_tokens=32)
    )
    for number in range(3):
        simulation.add(distinct(number, 1000), 4, EN)
    for _ in range(5):
        simulation.step()
    newcomer = simulation.add(distinct(9, 20), 4, SV)
    simulation.step()
    assert newcomer.generated == 1


def test_memory_that_runs_out_is_taken_from_who_has_most() -> None:
    simulation = Simulation(limits(max_num_seqs=6, rows=12, kv_tokens=480, max_num_batched_tokens=512))
    crowd = [simulation.add(distinct(n, 60), 100, EN) for n in range(4)]
    other = simulation.add(distinct(9, 60), 100, SV)
    while not simulation.scheduler.preemptions:
        simulation.step()
    assert other.state is SequenceState.RUNNING
    assert SequenceState.WAITING in {sequence.state for sequence in crowd}
    simulation.run()
    assert outputs_are_right(simulation)
