from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import resolve_settings
from server.config.values import SettingsError
from server.engines.kinds import ENGINES, choose_engine
from server.engines.suitability import count_gpus
from server.engines.vllm.options import VllmOptions, engine_args, prepare_environment
from server.engines.vllm.start import refuse_other_weights
from server.errors import EngineError


@dataclass(frozen=True)
class Guided:
    """Stands where vLLM has a configuration class of its own."""

    backend: str = "auto"


KNOWN: Mapping[str, Any] = {
    "tensor_parallel_size": int,
    "gpu_memory_utilization": float,
    "speculative_config": dict[str, Any] | None,
    "structured_outputs_config": Guided,
    "max_num_seqs": int | None,
    "max_loras": int,
    "max_cpu_loras": int | None,
    "max_lora_rank": int,
    "enable_lora": bool,
    "model": str,
}


def args(extra: Mapping[str, str], adapters: tuple[Adapter, ...] = (), **options: Any) -> dict[str, Any]:
    chosen = VllmOptions(base=Path("base"), base_name="base", extra=extra, **options)
    return engine_args(chosen, adapters, KNOWN)


def adapter(rank: int) -> Adapter:
    digest = f"sha256:{rank:064x}"
    return Adapter(
        alias=f"a{rank}", version="v1", digest=digest, path=Path(), rank=rank, alpha=1.0, targets=("q_proj",)
    )


def test_options_reach_vllm_by_its_own_names_and_with_their_types() -> None:
    given = args(
        {
            "tensor_parallel_size": "2",
            "gpu_memory_utilization": "0.85",
            "speculative_config": '{"method": "ngram", "num_speculative_tokens": 4}',
        }
    )
    assert given["tensor_parallel_size"] == 2
    assert given["gpu_memory_utilization"] == 0.85
    assert given["speculative_config"] == {"method": "ngram", "num_speculative_tokens": 4}


def test_grammars_are_read_by_the_library_that_the_other_engine_uses() -> None:
    assert args({})["structured_outputs_config"] == Guided("guidance")
    assert args({"structured_outputs_config": "{backend: auto}"})["structured_outputs_config"] == Guided()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"tensor_paralel_size": "2"}, "engine.tensor_paralel_size: .*tensor_parallel_size"),
        ({"model": "x"}, "engine.model: .*base_model"),
        ({"tensor_parallel_size": "{"}, "engine.tensor_parallel_size: .*'{'"),
        ({"structured_outputs_config": "{back: x}"}, "engine.structured_outputs_config: .*back"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(extra: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        args(extra)


def test_one_thing_is_said_in_one_place() -> None:
    with pytest.raises(SettingsError, match=r"engine.max_num_seqs: .*max_num_seqs"):
        args({"max_num_seqs": "8"}, max_num_seqs=4)
    assert args({"max_num_seqs": "8"})["max_num_seqs"] == 8
    assert args({}, max_num_seqs=4)["max_num_seqs"] == 4
    assert "max_num_seqs" not in args({})


@pytest.mark.parametrize(
    ("ranks", "slots", "rank"),
    [((), 1, 16), ((8, 8), 3, 8), ((8, 12), 3, 16), (tuple(range(1, 41)), 16, 64)],
)
def test_slots_and_rank_are_those_of_the_adapters_with_one_to_spare(
    ranks: tuple[int, ...], slots: int, rank: int
) -> None:
    given = args({}, tuple(map(adapter, ranks)))
    assert (given["max_loras"], given["max_lora_rank"]) == (slots, rank)
    assert given["max_cpu_loras"] == 64, "host memory does not grow with what lies on disk"


def test_slots_are_settings_of_ours_too() -> None:
    given = args({}, (adapter(8),) * 100, max_adapters=4, max_cpu_adapters=9)
    assert (given["max_loras"], given["max_cpu_loras"]) == (4, 9)
    assert args({}, (adapter(8),) * 100, max_cpu_adapters=9)["max_loras"] == 9
    assert args({}, (adapter(8),), max_adapters=100)["max_cpu_loras"] == 100
    with pytest.raises(SettingsError, match=r"engine.max_loras: .*max_adapters"):
        args({"max_loras": "8"}, max_adapters=4)


def test_an_operator_sizes_them_otherwise() -> None:
    given = args({"max_loras": "4", "max_lora_rank": "128", "max_cpu_loras": "5"}, (adapter(8),))
    assert (given["max_loras"], given["max_lora_rank"], given["max_cpu_loras"]) == (4, 128, 5)
    assert "max_loras" not in args({"enable_lora": "false"}, (adapter(8),))


def test_the_file_holds_them_right_under_engine(tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text(
        "engine:\n  kind: vllm\n  tensor_parallel_size: 2\n  speculative_config:\n    method: ngram\n"
    )
    engine = resolve_settings({}, {}, config=file).settings.engine
    assert engine.kind == "vllm"
    assert engine.options == {"tensor_parallel_size": "2", "speculative_config": '{"method": "ngram"}'}
    file.write_text("engine:\n  options: {a: 1}\n  b: 2\n")
    with pytest.raises(SettingsError, match=r"engine.options"):
        resolve_settings({}, {}, config=file)


def test_a_refusal_says_where_the_option_stands(tmp_path: Path) -> None:
    file = tmp_path / "oneseek.yaml"
    file.write_text("engine:\n  tensor_paralel_size: 2\n")
    resolved = resolve_settings({}, {}, config=file)
    refusal = resolved.located(SettingsError("engine.tensor_paralel_size", "is not an option"))
    assert str(refusal) == "engine.tensor_paralel_size: is not an option (oneseek.yaml:2)"


def test_vllm_reports_to_nobody_and_downloads_nothing() -> None:
    environ = {"VLLM_NO_USAGE_STATS": "0", "HF_HUB_OFFLINE": "0"}
    prepare_environment(environ, "warning")
    assert environ["VLLM_NO_USAGE_STATS"] == environ["DO_NOT_TRACK"] == "1"
    assert environ["HF_HUB_OFFLINE"] == "0"
    assert environ["VLLM_LOGGING_LEVEL"] == "WARNING"


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_hidden_gpus_are_none(hidden: str) -> None:
    assert count_gpus({"CUDA_VISIBLE_DEVICES": hidden}) == 0


def test_an_engine_that_is_asked_for_is_taken() -> None:
    assert choose_engine("embedded", {}).kind is ENGINES["embedded"]
    assert choose_engine("vllm", {"CUDA_VISIBLE_DEVICES": ""}).kind is ENGINES["vllm"]
    assert choose_engine("auto", {"CUDA_VISIBLE_DEVICES": ""}).kind is ENGINES["embedded"]


@pytest.mark.parametrize(
    ("files", "indexed", "refused"),
    [
        (["model.safetensors"], [], False),
        (["a.safetensors", "consolidated.safetensors"], ["a.safetensors"], False),
        (["model.safetensors", "consolidated.safetensors"], [], False),
        (["model.safetensors", "a.safetensors"], ["a.safetensors"], True),
        (["model.safetensors"], ["a.safetensors"], True),
        (["model.safetensors", "model-00001-of-00001.safetensors"], [], True),
    ],
)
def test_files_that_vllm_would_read_otherwise_are_refused(
    files: list[str], indexed: list[str], refused: bool, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    if indexed:
        index = {"weight_map": {name: name for name in indexed}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(EngineError, match=tmp_path.name) if refused else nullcontext():
        refuse_other_weights(tmp_path)
