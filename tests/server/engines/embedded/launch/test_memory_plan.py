"""The memory plan beside what a process really takes, and what is refused with which remedy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from bench.random_model import PRESETS, DecoderShape, write_model
from server.engines.embedded.launch import launch
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.memory_fit import fit
from server.engines.embedded.launch.memory_plan import adapter_bytes, plan_memory, weight_bytes
from server.engines.embedded.launch.options import EmbeddedOptions, plan
from server.engines.embedded.model.cache import method_of, prepare
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.families.lookup import parse_config, read_model_config
from server.engines.embedded.model.variants import FUSED
from server.engines.embedded.runners.available import GIB, MIB
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError
from server.text.tokenizer import Tokenizer

SHAPE = DecoderShape(768, 4, 12, 4, 64, 2048, 8192, 1024)
CHILD = """
import json, re, sys
from pathlib import Path
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.runners.cpu.runner import CpuRunner
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
base, graphs, quantize = sys.argv[1:]
graph = prepare(Path(base), Path(graphs), "sha256:0", quantize)
before = resident()
runner = CpuRunner(graph, 1, 1024, threads=1)
opened = resident()
for start in range(0, 1024, 256):
    runner.prefill(0, start, [7] * 256, (), [255])
print(json.dumps({"weights": opened - before, "computing": resident() - opened}))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget") / "base"
    write_model(folder, SHAPE, dtype="bfloat16")
    return folder


def mistral_7b() -> ModelConfig:
    named = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    return parse_config(named | asdict(PRESETS["7b"]))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_a_process_takes_what_the_plan_says(base: Path, tmp_path: Path, quantize: str) -> None:
    prepare(base, tmp_path, "sha256:0", quantize)
    config = read_model_config(base)
    limits = SchedulerLimits(
        max_num_seqs=1, max_num_batched_tokens=256, rows=1, context=1024, kv_tokens=1024, prefill_chunk=256
    )
    planned = {
        part.name: part.size
        for part in plan_memory(config, limits, method_of(quantize, FUSED), (), 64 * GIB).parts
    }
    command = [sys.executable, "-c", CHILD, str(base), str(tmp_path), quantize]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    taken = json.loads(output)
    # A quarter of the weights and 16 MiB for the session's own; computing takes at most what is planned.
    assert abs(taken["weights"] - planned["weights"]) < planned["weights"] / 4 + 16 * MIB
    most = planned["activations"] + planned["KV cache"]
    assert most / 4 < taken["computing"] < most + 16 * MIB


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_weights_are_those_of_the_graph_and_what_packing_adds(base: Path, quantize: str) -> None:
    for config in (read_model_config(base), mistral_7b()):
        method = method_of(quantize, FUSED)
        graph = plan_graph(config, FUSED, "fp32", method)
        held = sum(
            tensor.size
            for weight in graph.weights
            for tensor in weight.tensors
            if re.search(r"\.(packed|codes)$|^(qkv|o|gate|up|down|head)", tensor.name)
        )
        # A packed block has a sum beside its scale.
        sums = sum(
            tensor.size
            for weight in graph.weights
            for tensor in weight.tensors
            if tensor.name.endswith(".scales") and len(tensor.shape) == 2
        )
        assert weight_bytes(config, method) == pytest.approx(held + sums, rel=0.005)


def options(**changed: object) -> EmbeddedOptions:
    return replace(EmbeddedOptions(graphs=Path("graphs"), max_num_seqs=4), **changed)  # pyright: ignore[reportArgumentType]


def fitted(available: int, **changed: object) -> SchedulerLimits:
    config = mistral_7b()
    given = options(**changed)
    limits, needed = fit(config, given, (), lambda asked: plan(config, asked), available)
    assert needed.fits
    return limits


def test_a_float_base_is_refused_with_the_weights_that_fit() -> None:
    with pytest.raises(ValueError, match=r"\d\d\.\d GiB.*21\.0 GiB .*\(weights 26\.\d GiB.*") as refused:
        fitted(21 * GIB, kv_bytes=2 * GIB)
    ways = re.findall(r"quantize (int8|int4) \((\d+\.\d) GiB\)", str(refused.value))
    assert [name for name, _ in ways] == ["int8", "int4"]
    for name, needed in ways:
        fitted(int(float(needed) * GIB) + GIB // 10, kv_bytes=2 * GIB, quantize=name)


def test_keys_and_values_are_refused_with_those_that_fit() -> None:
    with pytest.raises(ValueError, match="kv_cache_memory") as refused:
        fitted(8 * GIB, kv_bytes=16 * GIB, quantize="int4")
    found = re.search(r"kv_cache_memory (\d+)MiB", str(refused.value))
    assert found
    room = int(found[1]) * MIB
    assert fitted(8 * GIB, kv_bytes=room, quantize="int4").kv_tokens > 512
    with pytest.raises(ValueError, match="kv_cache_memory"):
        fitted(8 * GIB, kv_bytes=room + 64 * MIB, quantize="int4")


def test_a_remedy_may_take_two_settings() -> None:
    with pytest.raises(ValueError, match=r"quantize int4 and kv_cache_memory \d+MiB"):
        fitted(7 * GIB, kv_bytes=16 * GIB)


def test_without_a_budget_keys_and_values_shrink_to_what_is_left() -> None:
    plenty = fitted(64 * GIB, quantize="int4")
    scarce = fitted(5 * GIB + GIB // 2, quantize="int4", kv_bytes=None)
    assert 512 <= scarce.kv_tokens <= plenty.kv_tokens


def test_where_nothing_helps_it_says_so() -> None:
    with pytest.raises(ValueError, match="GiB") as refused:
        fitted(GIB)
    assert "kv_cache_memory" not in str(refused.value)


def test_an_adapter_counts_by_its_rank_and_targets() -> None:
    config = mistral_7b()
    targets = ("q_proj", "v_proj")
    adapter = Adapter(
        alias="sv", version="v1", digest="sha256:0", path=Path(), rank=8, alpha=16.0, targets=targets
    )
    own = 8 * (4096 + 4096 + 4096 + 1024)
    together = 16 * (4096 + 6144)
    assert adapter_bytes(config, adapter) == 4 * 32 * (own + together)
    assert adapter_bytes(config, replace(adapter, rank=16)) == 2 * adapter_bytes(config, adapter)


def gpt_sw3_1b() -> ModelConfig:
    """As the release of 1.3B weights has it."""
    return parse_config(
        {
            "model_type": "gpt2",
            "n_embd": 2048,
            "n_layer": 24,
            "n_head": 32,
            "n_inner": 8192,
            "n_positions": 2048,
            "vocab_size": 64000,
            "activation_function": "gelu",
        }
    )


def test_a_gpt2s_plan_counts_its_positions_and_packed_products() -> None:
    config = gpt_sw3_1b()
    limits = plan(config, options(kv_tokens=4096))
    parts = {part.name: part.size for part in plan_memory(config, limits, "none", (), 64 * GIB).parts}
    products = 24 * (2048 * 6144 + 2048 * 2048 + 2 * 2048 * 8192)
    assert parts["weights"] == 4 * (products + 64000 * 2048)
    assert parts["embedding"] == 4 * (64000 * 2048 + 2048 * 2048)
    assert parts["KV cache"] == 4096 * 24 * 2 * 2048 * 4
    graph = plan_graph(config, FUSED, "fp32", "none").size
    assert graph == pytest.approx(parts["weights"] - 4 * 64000 * 2048 + parts["embedding"], rel=0.01)
    assert limits.context == 2048
    with pytest.raises(ValueError, match=r"max_model_len 4096 .*2048"):
        plan(config, options(max_model_len=4096))


def test_an_adapter_for_gpt2_counts_its_fused_product() -> None:
    targets = ("attn.c_proj", "c_attn")
    adapter = Adapter(
        alias="sv", version="v1", digest="sha256:0", path=Path(), rank=8, alpha=16.0, targets=targets
    )
    own = 8 * (2048 + 6144 + 2048 + 2048)
    assert adapter_bytes(gpt_sw3_1b(), adapter) == 4 * 24 * 2 * own


def test_the_engine_tells_its_plan_and_refuses_before_it_builds(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    given = options(graphs=tmp_path / "graphs", kv_tokens=1024)
    tokenizer = Tokenizer.load(base)
    embedded_engine(base, "sha256:0", tokenizer, given, say=said.append)
    assert said[0].startswith("memory plan: up to ")
    assert any("KV cache" in line and "1,024 tokens" in line for line in said)
    monkeypatch.setattr(launch, "available_memory", lambda: 380 * MIB)
    empty = replace(given, graphs=tmp_path / "none")
    with pytest.raises(EngineError, match=r"380 MiB .*quantize int"):
        embedded_engine(base, "sha256:0", tokenizer, empty)
    assert not (tmp_path / "none").exists()


def test_prompts_in_bfloat16_hold_the_weights_again_and_are_the_first_to_be_given_up() -> None:
    config, given = mistral_7b(), options(quantize="int4", prefill_dtype="bf16", kv_tokens=4096)
    _, needed = fit(config, given, (), lambda asked: plan(config, asked), 64 * GIB)
    prompts = next(part.size for part in needed.parts if part.name == "weights for prefill")
    assert prompts == pytest.approx(2 * 7.1e9, rel=0.01)
    with pytest.raises(ValueError, match=r"prefill_dtype fp32 \(\d"):
        fitted(12 * GIB, quantize="int4", prefill_dtype="bf16", kv_tokens=4096)
