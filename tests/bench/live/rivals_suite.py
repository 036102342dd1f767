"""Every contender started for real and asked for a few answers: `make test-rivals`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.contenders.adapters import MINI_ADAPTERS
from tests.bench.live.live_suite import ONE_THREAD, SHORT, run

pytestmark = pytest.mark.timeout(900)
REQUESTS = ("--requests", "8")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rivals")


@pytest.fixture
def vllm(pytestconfig: pytest.Config) -> str:
    python = pytestconfig.getoption("--vllm-python")
    if not python:
        pytest.skip("vLLM is there on Linux alone: name its interpreter in --vllm-python")
    return str(python)


@pytest.mark.parametrize("name", ["vllm", "oneseek-vllm"])
def test_vllm_answers_by_both_adapters(vllm: str, work: Path, name: str) -> None:
    out = work / name
    told = run(work, "run", "--start", name, "--python", vllm, *SHORT, *REQUESTS, "--out", str(out))
    (part,) = told["scenarios"]
    assert (part["completed"], part["failed"], part["reconciliation"]) == (8, 0, "exact")


def test_vllms_rust_front_end_answers_from_the_base(vllm: str, work: Path) -> None:
    """Without adapters: with vLLM 0.32.0 it cannot load any."""
    if not os.environ.get("VLLM_RUST_FRONTEND_PATH"):
        pytest.skip("vllm-rs comes with CUDA wheels: name the file in VLLM_RUST_FRONTEND_PATH")
    told = run(work, "run", "--start", "vllm-rust", "--python", vllm, "--scenario", "front-end",
               *SHORT, *REQUESTS, "--out", str(work / "rust"))  # fmt: skip
    (part,) = told["scenarios"]
    assert (part["completed"], part["failed"]) == (8, 0)


def test_oneseek_on_vllms_engine_beside_vllm(vllm: str, work: Path) -> None:
    """Few requests and 7 rounds: that both serve the same load, not which is faster."""
    told = run(work, "compare", "vllm", "oneseek-vllm", "--python", vllm, *SHORT, *REQUESTS,
               "--gate", "worse", "--threshold", "0.1")  # fmt: skip
    assert {server["kind"] for server in told["servers"].values()} == {"vllm", "oneseek"}
    assert all(server["adapters"] == len(MINI_ADAPTERS) for server in told["servers"].values())
    (point,) = told["points"]
    assert all(0 < share < 1 for share in point["share_of_limit"].values())


@pytest.mark.parametrize("other", ["vllm", "vllm-rust"])
def test_the_front_ends_alone_at_both_endpoints(vllm: str, work: Path, other: str) -> None:
    if other == "vllm-rust" and not os.environ.get("VLLM_RUST_FRONTEND_PATH"):
        pytest.skip("vllm-rs comes with CUDA wheels: name the file in VLLM_RUST_FRONTEND_PATH")
    told = run(work, "compare", other, "oneseek-vllm", "--python", vllm, "--scenario", "front-end",
               "--users", "4,1", "--endpoint", "completions,chat", *REQUESTS, "--answer-tokens", "6",
               "--engine-option", "enforce_eager=true", "--gate", "worse", "--threshold", "0.1")  # fmt: skip
    assert all(server["adapters"] == 0 for server in told["servers"].values())
    assert [(point["endpoint"], point["load"]["users"]) for point in told["points"]] == [
        ("completions", 4), ("completions", 1), ("chat", 4), ("chat", 1),
    ]  # fmt: skip
    for point in told["points"]:
        assert {"tokens_per_second", "ttft_mean_ms"} <= point["ratios"].keys()


def test_llama_cpps_server_answers_from_the_same_base(pytestconfig: pytest.Config, work: Path) -> None:
    python = pytestconfig.getoption("--llama-python")
    told = run(work, "run", "--start", "llama.cpp", "--python", f"llama.cpp={python}", "--scenario", "base",
               *SHORT, *REQUESTS, *ONE_THREAD, "--out", str(work / "llama"))  # fmt: skip
    (part,) = told["scenarios"]
    assert (part["completed"], part["failed"]) == (8, 0)
    report = json.loads((work / "llama" / "report.json").read_text(encoding="utf-8"))
    assert [server["kind"] for server in report["servers"]] == ["llama.cpp"]
