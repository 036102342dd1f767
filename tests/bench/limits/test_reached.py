from __future__ import annotations

import pytest

from bench.contenders.adapters import BASE
from bench.host import Gpu
from bench.limits.reached import RunLimit, machine, machine_at_hand, run_limit
from bench.limits.roofline import tokens_per_second
from tests.bench.figures.records import record

H100 = machine("h100", "mistral-7b", "none")


def test_the_limit_is_of_the_mean_lengths_and_of_the_streams_that_ran() -> None:
    records = [record(1), record(2)]
    first = records[0]
    seconds = first.latency * 2 / 1.5
    found = run_limit(H100, records, seconds)
    prompt = first.prompt_tokens - first.cached_tokens
    assert found == tokens_per_second(H100.model, H100.device, 2, prompt, first.completion_tokens)


def test_nothing_completed_has_no_limit() -> None:
    assert run_limit(H100, [record(1, outcome="failed")], 1.0) is None


def test_the_machine_at_hand_is_its_gpu_or_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.limits.cpu.READ_BYTES", 8 << 20)
    gpu = Gpu("0", "NVIDIA H100 80GB HBM3", 81559, "570", "12.8")
    found = machine_at_hand(gpu, str(BASE), "int8")
    assert found is not None
    assert (found.device.name, found.model.packed) == ("H100 SXM", 1.0)
    own = machine_at_hand(None, str(BASE), "none")
    assert own is not None
    assert (own.device.name, own.model.width) == ("local CPU", 4)
    unknown = Gpu("0", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10000, "570", "12.8")
    assert machine_at_hand(unknown, str(BASE), "none") is None
    assert machine_at_hand(gpu, "nowhere", "none") is None
    half = machine_at_hand(None, str(BASE), "none", cpu_width=2)
    assert half is not None
    assert half.model.width == 2


def test_a_run_is_held_against_a_rate_or_a_device() -> None:
    records, seconds = [record(1)], 1.0
    assert RunLimit(given=80.0).of(records, seconds) == 80
    assert RunLimit(H100).of(records, seconds) == run_limit(H100, records, seconds)
    assert RunLimit().of(records, seconds) is None
    assert RunLimit(H100).to_json()["device"] == "H100 SXM"
