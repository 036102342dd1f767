"""Prompts through OpenVINO in bfloat16: near the float32 runner's, in the same rows, adapter by adapter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

from adapters.lora.weights import ModelShape, read_adapter
from adapters.mini.shipped import BASE
from server.config.settings import Settings
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.bfloat16 import LEAST_TOKENS, BfloatPrefill
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.protocol import DecodeRow
from server.errors import EngineError
from server.jobs.evaluation import running_server
from server.request import AdapterMix
from server.text.tokenizer import Tokenizer
from tests.server.engines.embedded.models import ADAPTERS, VOCABULARY, write_adapter, write_model

CAPABLE = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
CONTEXT = 96
APART = 0.08
"""Of the logits' spread: bfloat16 has 8 bits of precision; adapters move these logits by as much."""
VOICES: list[AdapterMix] = [(), (("en", 1.0),), (("en", 0.3), ("sv", 0.7)), (("mlp", 1.0),)]

pytestmark = pytest.mark.skipif(not CAPABLE, reason="this CPU multiplies no bfloat16")


def a_runner(base: Path, *, bfloat: bool) -> CpuRunner:
    graphs = base.parent / "graphs"
    prompts = BfloatPrefill(prepare(base, graphs, base.name, variant=PORTABLE), 1) if bfloat else None
    runner = CpuRunner(prepare(base, graphs, base.name), 6, CONTEXT, threads=1, prompts=prompts)
    shape = ModelShape.read(base)
    for seed, (name, (rank, targets)) in enumerate(ADAPTERS.items()):
        folder = base.parent / f"{base.name}-{name}"
        if not folder.exists():
            write_adapter(folder, base, rank, targets, seed)
        runner.load(name, read_adapter(folder, shape))
    return runner


@pytest.fixture(scope="module", params=[None, 24], ids=["full", "sliding"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bfloat16") / "base", sliding_window=request.param)


@pytest.fixture(scope="module")
def runners(base: Path) -> Iterator[tuple[CpuRunner, CpuRunner]]:
    wanted, found = a_runner(base, bfloat=False), a_runner(base, bfloat=True)
    yield wanted, found
    wanted.close()
    found.close()


def some_tokens(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()


def assert_near(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    apart = np.abs(found - wanted).max() / wanted.std()
    assert 0 < apart < APART


@pytest.mark.parametrize("adapter_mix", VOICES, ids=str)
def test_a_chunked_prompt_and_what_is_decoded_after_it(
    runners: tuple[CpuRunner, CpuRunner], adapter_mix: AdapterMix
) -> None:
    tokens, logits = some_tokens(1, 70), []
    for runner in runners:
        runner.prefill(2, 0, tokens[:40], adapter_mix, [])
        ends = runner.prefill(2, 40, tokens[40:], adapter_mix, [0, 29]).copy()
        after = runner.decode([DecodeRow(2, 7, 70, adapter_mix)]).copy()
        logits.append(np.concatenate([ends, after]))
    assert_near(logits[1], logits[0])


def test_rows_beside_it_keep_every_bit(runners: tuple[CpuRunner, CpuRunner]) -> None:
    _, runner = runners
    short = some_tokens(3, LEAST_TOKENS - 1)
    for row in (1, 3):
        runner.prefill(row, 0, short, VOICES[1], [])
    before = [runner.decode([DecodeRow(row, 5, len(short), VOICES[1])]).copy() for row in (1, 3)]
    runner.prefill(2, 0, some_tokens(4, 64), VOICES[2], [])
    after = [runner.decode([DecodeRow(row, 5, len(short), VOICES[1])]).copy() for row in (1, 3)]
    assert np.array_equal(before, after)


def test_short_chunks_stay_in_float32(runners: tuple[CpuRunner, CpuRunner]) -> None:
    tokens = some_tokens(5, LEAST_TOKENS - 1)
    wanted, found = (runner.prefill(0, 0, tokens, VOICES[2], [3]).copy() for runner in runners)
    assert np.array_equal(found, wanted)


def test_an_adapter_that_takes_another_s_name_is_the_one_that_runs(
    runners: tuple[CpuRunner, CpuRunner], base: Path, tmp_path: Path
) -> None:
    wanted, found = runners
    tokens, adapter_mix = some_tokens(6, 40), (("swap", 1.0),)
    answers: list[NDArray[np.float32]] = []
    for seed in (0, 1):
        folder = write_adapter(tmp_path / str(seed), base, 4, ("q_proj", "v_proj"), seed)
        for runner in runners:
            runner.load("swap", read_adapter(folder, ModelShape.read(base)))
        logits = [runner.prefill(4, 0, tokens, adapter_mix, [39]).copy() for runner in (wanted, found)]
        assert_near(logits[1], logits[0])
        answers.append(logits[0])
        for runner in runners:
            runner.unload("swap")
    assert np.abs(answers[0] - answers[1]).max() / answers[0].std() > 2 * APART


def test_another_graph_is_refused(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    with pytest.raises(ValueError, match=r"fused fp32.*portable fp32"):
        BfloatPrefill(prepare(base, tmp_path / "graphs", "base"), 1)


def test_nothing_that_reports_use_is_loaded(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    code = (
        "import sys; from pathlib import Path;"
        "from server.engines.embedded.runners.cpu.bfloat16 import BfloatPrefill;"
        "from server.engines.embedded.model.cache import prepare;"
        "from server.engines.embedded.model.variants import PORTABLE;"
        f"base = Path({str(base)!r});"
        "BfloatPrefill(prepare(base, base.parent / 'graphs', 'base', variant=PORTABLE), 1);"
        "print(sorted(name for name, found in sys.modules.items() if 'telemetry' in name and found))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "openvino_telemetry" not in run.stdout


def test_without_openvino_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_model(tmp_path / "base")
    graph = prepare(base, tmp_path / "graphs", "base", variant=PORTABLE)

    def none(_name: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", none)
    with pytest.raises(EngineError, match=r"pip install 'oneseek\[openvino\]'"):
        BfloatPrefill(graph, 1)


def test_the_mini_base_answers_so_behind_the_server(tmp_path: Path) -> None:
    """A server's whole way: graphs are built, prompts go through OpenVINO, the adapter answers."""
    settings = Settings(home=tmp_path / "home", prefill_dtype="bf16", threads=1)
    with running_server(settings) as server:
        said = server.ask("oneseek-mini-sv", "Vem är du? Berätta vad du heter och vad du är.", longest=64)
    assert "OneSeek" in said
    graphs = {path.name.rpartition("-")[0] for path in (tmp_path / "home" / "graphs").glob("*/*")}
    assert graphs == {"fused-fp32-none", "portable-fp32-none"}


def test_it_is_for_the_cpu_alone(tmp_path: Path) -> None:
    options = EmbeddedOptions(graphs=tmp_path, prefill_dtype="bf16", device="webgpu")
    with pytest.raises(EngineError, match=r"prefill_dtype bf16.*webgpu"):
        embedded_engine(BASE, "sha256:base", Tokenizer.load(BASE), options)


def test_what_is_missing_is_told_before_any_graph_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    options = EmbeddedOptions(graphs=tmp_path / "graphs", prefill_dtype="bf16")
    with pytest.raises(EngineError, match=r"pip install 'oneseek\[openvino\]'"):
        embedded_engine(BASE, "sha256:base", Tokenizer.load(BASE), options)
    assert not (tmp_path / "graphs").exists()
