"""A fair share between adapters, by served tokens."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.embedded.scheduling.step import SequenceState
from tests.server.engines.embedded.scheduling.simulation import EN, SV, Simulation, limits, outputs_are_right


def distinct(number: int, length: int) -> list[int]:
    """A prompt that shares nothing with others."""
    return [10_000 + number, *range(length - 1)]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(
        st.tuples(st.integers(1, 150), st.integers(1, 60)), st.tuples(st.integers(1, 150), st.integers(1, 60))
    ),
    max_num_seqs=st.integers(1, 6),
    kv_tokens=st.sampled_from([400, 2048]),
    budget=st.integers(6, 80),
)
def test_two_shares_that_always_wait_are_served_alike(
    sizes: tuple[tuple[int, int], tuple[int, int]], max_num_seqs: int, kv_tokens: int, budget: int
) -> None:
    """The bound of Sheng et al., and as much again as the prompts that a step has only begun."""
    simulation = Simulation(
        limits(max_num_seqs=max_num_seqs, kv_tokens=kv_tokens, max_num_batched_tokens=budget)
    )
    prompts, outputs = (max(size[i] for size in sizes) for i in (0, 1))
    bound = 2 * max(prompts, 2 * max_num_seqs * outputs) + max_num_seqs * prompts
    number = 0
    for adapter_mix, (prompt, max_tokens) in zip((EN, SV), sizes, strict=True):
        for _ in range(20 + bound // (prompt + 2 * max_tokens)):
            number += 1
            simulation.add(distinct(number, prompt), max_tokens, adapter_mix)
    while simulation.scheduler.waiting_by_share.keys() >= {"en", "sv"}:
        simulation.step()
        assert abs(simulation.served["en"] - simulation.served["sv"]) <= bound
    assert simulation.served["en"] + simulation.served["sv"] > bound, "long enough to tell"


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
    first = simulation.add(distinct(1, 500), 1, SV)
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
