from __future__ import annotations

from pathlib import Path

import pytest

from bench.scale.times import StepTimes, fit, read_times, write_times

TIMES = StepTimes((1, 4, 8), (0.004, 0.007, 0.009), 0.0001, 0.003, 0.002, 0.5)


def test_decode_steps_interpolate_and_go_on() -> None:
    assert [TIMES.decode_step(rows) for rows in (0, 1, 4, 8)] == [0, 0.004, 0.007, 0.009]
    assert TIMES.decode_step(2) == pytest.approx(0.005)
    assert TIMES.decode_step(6) == pytest.approx(0.008)
    assert TIMES.decode_step(12) == pytest.approx(0.011)
    falling = StepTimes((1, 2), (0.004, 0.003), 0, 0, 0)
    assert falling.decode_step(50) == pytest.approx(0.004)
    assert StepTimes((4,), (0.004,), 0, 0, 0).decode_step(2) == 0.004
    assert StepTimes((4,), (0.004,), 0, 0, 0).decode_step(8) == pytest.approx(0.008)


def test_a_step_adds_up() -> None:
    assert TIMES.step(4, 2, 100) == pytest.approx(0.007 + 2 * 0.003 + 100 * 0.0001)


def test_a_fit_by_hand() -> None:
    # TTFT = 5 ms + 0.1 ms a token; 4 ms of the 5 are a run of the engine, 1 ms is overhead.
    found = fit({1: 0.004, 2: 0.005}, [(10, 0.006), (20, 0.007), (40, 0.009)])
    assert (found.rows, found.decode) == ((1, 2), (0.004, 0.005))
    assert found.prompt_token == pytest.approx(0.0001)
    assert found.chunk == pytest.approx(0.004)
    assert found.overhead == pytest.approx(0.001)
    with pytest.raises(ValueError, match="two"):
        fit({1: 0.004}, [(10, 0.006), (10, 0.007)])


def test_times_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    write_times(path, TIMES, {"date": "today"})
    assert read_times(path) == TIMES
    path.write_text('{"schema": "other"}')
    with pytest.raises(ValueError, match=r"times\.json"):
        read_times(path)


@pytest.mark.parametrize(
    ("rows", "decode"), [((), ()), ((1, 2), (0.1,)), ((2, 1), (0.1, 0.2)), ((0,), (0.1,)), ((1,), (0.0,))]
)
def test_rows_that_are_not_such_are_refused(rows: tuple[int, ...], decode: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rows"):
        StepTimes(rows, decode, 0, 0, 0)
