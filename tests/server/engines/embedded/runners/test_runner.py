"""Every runner against transformers + PEFT in float32, and what it does with rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.model.cache import BuiltGraph, prepare
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.protocol import DecodeRow, Runner
from server.request import AdapterMix
from tests.server.engines.embedded.models import ADAPTERS, VOCABULARY, Reference, write_adapter, write_model

TOLERANCE = 1e-4
CONTEXT = 96
VOICES: list[AdapterMix] = [
    (),
    (("en", 1.0),),
    (("sv", 1.0),),
    (("qv", 1.0),),
    (("mlp", 1.0),),
    (("en", 0.3), ("sv", 0.7)),
    (("en", 0.5), ("mlp", -0.4), ("sv", 1.5)),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("runner") / "base")


@pytest.fixture(scope="module")
def folders(base: Path) -> dict[str, Path]:
    return {
        name: write_adapter(base.parent / name, base, rank, targets, seed)
        for seed, (name, (rank, targets)) in enumerate(ADAPTERS.items())
    }


@pytest.fixture(scope="module")
def reference(base: Path, folders: dict[str, Path]) -> Reference:
    return Reference(base, folders)


@pytest.fixture(scope="module")
def weights(base: Path, folders: dict[str, Path]) -> dict[str, AdapterWeights]:
    shape = ModelShape.read(base)
    return {name: read_adapter(folder, shape) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def graph(base: Path) -> BuiltGraph:
    return prepare(base, base.parent / "graphs", "sha256:base")


@pytest.fixture(scope="module")
def portable(base: Path) -> BuiltGraph:
    return prepare(base, base.parent / "graphs", "sha256:base", variant=PORTABLE)


@pytest.fixture(params=["cpu", "device"])
def runner(
    request: pytest.FixtureRequest,
    graph: BuiltGraph,
    portable: BuiltGraph,
    weights: dict[str, AdapterWeights],
) -> Iterator[Runner]:
    runner = (
        CpuRunner(graph, 16, CONTEXT, threads=1)
        if request.param == "cpu"
        else DeviceRunner(portable, PROVIDERS["cpu"], 16, CONTEXT, chunk=24)
    )
    for name, adapter in weights.items():
        runner.load(name, adapter)
    yield runner
    runner.close()


def some_tokens(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()


@pytest.mark.parametrize("adapter_mix", VOICES, ids=lambda mix: "+".join(name for name, _ in mix) or "base")
def test_every_position_agrees_with_the_reference(
    runner: Runner, reference: Reference, adapter_mix: AdapterMix
) -> None:
    tokens = some_tokens(1, 40)
    expected = reference.logits(tokens, adapter_mix)
    found = runner.prefill(3, 0, tokens, adapter_mix, range(40))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_adapters_change_logits_by_far_more_than_the_tolerance(reference: Reference) -> None:
    tokens = some_tokens(1, 40)
    plain = reference.logits(tokens)
    for adapter_mix in VOICES[1:]:
        assert np.abs(reference.logits(tokens, adapter_mix) - plain).max() > 0.1


def test_a_mixed_batch_of_chunked_prompts_agrees_with_the_reference(
    runner: Runner, reference: Reference
) -> None:
    rows = {0: 5, 1: 33, 2: 1, 4: 17, 5: 48, 9: 20, 15: 9}
    voices = {row: VOICES[i % len(VOICES)] for i, row in enumerate(rows)}
    sequences = {row: some_tokens(row, length) for row, length in rows.items()}
    for row, tokens in sequences.items():
        for start in range(0, len(tokens) - 1, 7):
            runner.prefill(row, start, tokens[start : min(start + 7, len(tokens) - 1)], voices[row], [])
    for step in range(6):
        chosen = [row for row in rows if step % 2 == 0 or row % 2]
        entries = [DecodeRow(row, sequences[row][-1], len(sequences[row]) - 1, voices[row]) for row in chosen]
        found = runner.decode(entries).copy()
        for row, logits in zip(chosen, found, strict=True):
            expected = reference.logits(sequences[row], voices[row])[-1]
            np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
            sequences[row].append(int(expected.argmax()))


def test_a_row_decodes_alike_alone_and_among_others(runner: Runner) -> None:
    tokens = some_tokens(2, 30)
    runner.prefill(2, 0, tokens, (("sv", 1.0),), [])
    alone = runner.decode([DecodeRow(2, 7, 30, (("sv", 1.0),))]).copy()
    for row in (0, 1, 3, 4):
        runner.prefill(row, 0, some_tokens(row, 20), VOICES[row], [])
    entries = [DecodeRow(row, 9, 20, VOICES[row]) for row in (0, 1, 3, 4)]
    entries.insert(2, DecodeRow(2, 7, 30, (("sv", 1.0),)))
    np.testing.assert_allclose(runner.decode(entries)[2], alone[0], atol=TOLERANCE, rtol=0)


def test_loading_and_dropping_an_adapter_leaves_other_rows_alone(
    runner: Runner, weights: dict[str, AdapterWeights], reference: Reference
) -> None:
    mixes: list[AdapterMix] = [(("en", 1.0),), (("sv", 1.0),)]
    sequences = [some_tokens(row, 12) for row in (0, 1)]
    for row in (0, 1):
        runner.prefill(row, 0, sequences[row][:-1], mixes[row], [])
    runner.decode([DecodeRow(row, sequences[row][-1], 11, mixes[row]) for row in (0, 1)])
    runner.unload("sv")
    runner.load("new", weights["mlp"])
    sequences[0].append(5)
    found = runner.decode([DecodeRow(0, 5, 12, mixes[0])])
    np.testing.assert_allclose(found[0], reference.logits(sequences[0], mixes[0])[-1], atol=TOLERANCE)
    with pytest.raises(ValueError, match="adapter sv "):
        runner.decode([DecodeRow(1, 5, 12, mixes[1])])
    found = runner.prefill(1, 0, sequences[1], (("new", 1.0),), [11])
    np.testing.assert_allclose(found[0], reference.logits(sequences[1], (("mlp", 1.0),))[-1], atol=TOLERANCE)


def test_idle_rows_between_decoded_ones_keep_their_contents(runner: Runner, reference: Reference) -> None:
    tokens = some_tokens(3, 25)
    for row in range(5):
        runner.prefill(row, 0, tokens[:-1], (), [])
    for position in range(24, 40):
        runner.decode([DecodeRow(0, 1, position, ()), DecodeRow(4, 2, position, (("sv", 1.0),))])
    for row in (1, 2, 3):
        found = runner.decode([DecodeRow(row, tokens[-1], 24, ())])
        np.testing.assert_allclose(found[0], reference.logits(tokens)[-1], atol=TOLERANCE)


def test_a_copied_prefix_continues_as_its_source(runner: Runner, reference: Reference) -> None:
    tokens, other = some_tokens(4, 30), some_tokens(5, 30)
    runner.prefill(1, 0, tokens, (), [])
    runner.prefill(6, 0, other, (), [])
    runner.copy(1, 6, 18)
    continued = [*tokens[:18], *other[:5]]
    found = runner.prefill(6, 18, other[:5], (), range(5))
    np.testing.assert_allclose(found, reference.logits(continued)[18:], atol=TOLERANCE)
    found = runner.decode([DecodeRow(1, 3, 30, ())])
    np.testing.assert_allclose(found[0], reference.logits([*tokens, 3])[-1], atol=TOLERANCE)


def test_a_released_row_is_empty_and_can_be_used_again(runner: Runner, reference: Reference) -> None:
    tokens = some_tokens(6, 20)
    runner.prefill(0, 0, some_tokens(7, 60), (), [])
    runner.release(0)
    with pytest.raises(ValueError, match=r"\b0\b"):
        runner.decode([DecodeRow(0, 1, 20, ())])
    found = runner.prefill(0, 0, tokens, (), [19])
    np.testing.assert_allclose(found[0], reference.logits(tokens)[-1], atol=TOLERANCE)


def test_a_whole_context_can_be_filled(runner: Runner, reference: Reference) -> None:
    tokens = some_tokens(8, CONTEXT)
    runner.prefill(15, 0, tokens[:-1], (), [])
    found = runner.decode([DecodeRow(15, tokens[-1], CONTEXT - 1, ())])
    np.testing.assert_allclose(found[0], reference.logits(tokens)[-1], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("row", "start", "tokens", "outputs"),
    [
        (16, 0, [1], []),
        (-1, 0, [1], []),
        (0, 0, [], []),
        (0, 1, [1], []),
        (0, -1, [1, 1], []),
        (0, 0, [1] * (CONTEXT + 1), []),
        (0, 0, [VOCABULARY], []),
        (0, 0, [-1], []),
        (0, 0, [1, 2], [2]),
        (0, 0, [1, 2], [-1]),
        (0, 0, [1, 2], [1, 0]),
    ],
)
def test_prefill_refuses_what_lies_outside(
    runner: Runner, row: int, start: int, tokens: list[int], outputs: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"row|positions|token|outputs"):
        runner.prefill(row, start, tokens, (), outputs)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [DecodeRow(0, 1, 5, ())],
        [DecodeRow(1, 1, 0, ()), DecodeRow(0, 1, 0, ())],
        [DecodeRow(1, 1, 0, ()), DecodeRow(1, 1, 0, ())],
        [DecodeRow(16, 1, 0, ())],
        [DecodeRow(0, 1, -1, ())],
        [DecodeRow(0, VOCABULARY, 0, ())],
    ],
)
def test_decode_refuses_what_lies_outside(runner: Runner, rows: list[DecodeRow]) -> None:
    with pytest.raises(ValueError, match=r"row|position|token"):
        runner.decode(rows)


def test_copy_and_release_refuse_what_lies_outside(runner: Runner) -> None:
    runner.prefill(0, 0, [1, 2, 3], (), [])
    for source, target, length in ((0, 16, 1), (16, 0, 1), (0, 1, 4), (0, 1, -1)):
        with pytest.raises(ValueError, match=r"row|length"):
            runner.copy(source, target, length)
    with pytest.raises(ValueError, match="row 16"):
        runner.release(16)


def test_a_runner_of_impossible_size_is_refused(graph: BuiltGraph) -> None:
    with pytest.raises(ValueError, match=r"\brows\b.* 0\b"):
        CpuRunner(graph, 0, CONTEXT)
    with pytest.raises(ValueError, match="context length 129"):
        CpuRunner(graph, 1, 129)
    with pytest.raises(ValueError, match="spin_us -1"):
        CpuRunner(graph, 1, CONTEXT, spin_us=-1)


@pytest.mark.parametrize("spin_us", [0, 50])
def test_threads_that_sleep_or_spin_compute_the_same(
    graph: BuiltGraph, reference: Reference, spin_us: int
) -> None:
    runner = CpuRunner(graph, 1, CONTEXT, threads=2, spin_us=spin_us)
    tokens = some_tokens(1, 40)
    found = runner.prefill(0, 0, tokens, (), range(40))
    np.testing.assert_allclose(found, reference.logits(tokens), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("quantize", "tolerance"), [("int8", 0.1), ("int4", 0.75)])
def test_quantised_logits_are_near_those_of_float32(tmp_path: Path, quantize: str, tolerance: float) -> None:
    base = write_model(tmp_path / "base", initializer_range=0.06)
    folder = write_adapter(tmp_path / "sv", base, *ADAPTERS["sv"], seed=1)
    runner = CpuRunner(prepare(base, tmp_path / "graphs", "base", quantize), 2, CONTEXT, threads=1)
    runner.load("sv", read_adapter(folder, ModelShape.read(base)))
    reference = Reference(base, {"sv": folder})
    tokens = some_tokens(9, 40)
    mixes: list[AdapterMix] = [(), (("sv", 1.0),)]
    for adapter_mix in mixes:
        found = runner.prefill(0, 0, tokens, adapter_mix, range(40))
        assert 0 < np.abs(found - reference.logits(tokens, adapter_mix)).max() < tolerance
