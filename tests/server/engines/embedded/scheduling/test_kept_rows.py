"""A row is kept for a moment for a share that comes back at once."""

from __future__ import annotations

from server.engines.embedded.scheduling.fairness import PATIENCE
from server.engines.embedded.scheduling.step import Sequence, SequenceState
from tests.server.engines.embedded.scheduling.simulation import EN, SV, Simulation, limits, outputs_are_right


def crowd(simulation: Simulation, count: int) -> list[Sequence]:
    return [
        simulation.add([10_000 + number, *range(19)], 200, EN, tenant="crowd", stop_after=200)
        for number in range(count)
    ]


def ask(simulation: Simulation, number: int, tokens: int = 10) -> Sequence:
    return simulation.add([20_000 + number, *range(19)], tokens, SV, tenant="polite")


def run_until_done(simulation: Simulation, sequence: Sequence) -> int:
    """Steps until its end."""
    for step in range(1, 500):
        simulation.step()
        if sequence.state is SequenceState.FINISHED:
            return step
    raise AssertionError("does not end")


def answers(simulation: Simulation, pause: int, count: int) -> list[int]:
    """Steps that each of `count` answers takes, asked one after another with so many steps between them."""
    found: list[int] = []
    for number in range(count):
        found.append(run_until_done(simulation, ask(simulation, number)))
        for _ in range(pause):
            simulation.step()
    return found


def test_who_comes_back_at_once_has_its_row_and_nobody_is_put_back_again() -> None:
    simulation = Simulation(limits(max_num_seqs=2, rows=6, context=4096, kv_tokens=6 * 4096))
    streams = crowd(simulation, 4)
    simulation.step()
    steps = answers(simulation, 3, 12)
    assert set(steps[2:]) == {10}, "a step for the first token, one for each other"
    assert sum(simulation.made_way.values()) <= 2, "at first, until it is known to come back"
    assert any(stream.state is SequenceState.RUNNING for stream in streams)
    simulation.run()
    assert outputs_are_right(simulation)


def test_no_row_is_kept_for_who_comes_back_late() -> None:
    simulation = Simulation(limits(max_num_seqs=2, rows=6, context=4096, kv_tokens=6 * 4096))
    crowd(simulation, 8)
    simulation.step()
    idle = 0
    for number in range(12):
        run_until_done(simulation, ask(simulation, number))
        for _ in range(PATIENCE + 2):
            step = simulation.step()
            idle += len(step.decodes) + len(step.chunks) < 2
    assert idle == 0


def test_a_kept_row_goes_to_others_in_the_end() -> None:
    simulation = Simulation(limits(max_num_seqs=2, rows=6, context=4096, kv_tokens=6 * 4096))
    crowd(simulation, 4)
    simulation.step()
    answers(simulation, 2, 6)
    idle = 0
    for _ in range(100):
        step = simulation.step()
        idle += len(step.decodes) + len(step.chunks) < 2
    assert 0 < idle <= PATIENCE


def test_who_has_less_than_its_part_takes_a_kept_row() -> None:
    simulation = Simulation(limits(max_num_seqs=2, rows=6, context=4096, kv_tokens=6 * 4096))
    crowd(simulation, 4)
    simulation.step()
    answers(simulation, 2, 6)
    run_until_done(simulation, ask(simulation, 90))
    third = simulation.add([30_000, *range(19)], 10, tenant="third")
    simulation.step()
    assert third.state is SequenceState.RUNNING


def test_an_engine_with_nothing_to_do_keeps_no_row() -> None:
    """What waits in the background starts, although another is expected back: no step is empty."""
    simulation = Simulation(limits(max_num_seqs=1, rows=3))
    for number in range(4):
        run_until_done(simulation, ask(simulation, number))
    shadow = simulation.add([40_000, *range(19)], 10, EN, background=True)
    assert not simulation.step().empty
    assert shadow.state is SequenceState.RUNNING
