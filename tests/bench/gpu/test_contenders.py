from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.gpu.contenders import Contenders
from bench.gpu.models import ADAPTERS

SETTINGS: dict[str, Any] = {
    "prompt": 512,
    "tokens": 128,
    "dtype": "bfloat16",
    "engine": "vllm",
    "max_num_seqs": 256,
    "gpu_memory_utilization": 0.85,
    "engine_options": {"enforce_eager": True, "specialize_active_lora": False, "seed": 7},
}


@pytest.fixture
def contenders(tmp_path: Path) -> Contenders:
    adapters = {name: tmp_path / name for name in ADAPTERS}
    return Contenders(tmp_path, Path(sys.executable), tmp_path / "base", adapters, SETTINGS, on_gpu=True)


def options(command: list[str]) -> dict[str, str]:
    """Each flag with its last value."""
    found: dict[str, str] = {}
    for flag, value in zip(command, [*command[1:], "--"], strict=True):
        if flag.startswith("--"):
            found[flag.removeprefix("--")] = "" if value.startswith("--") else value
    return found


@pytest.mark.parametrize(("start", "slots"), [("base", 0), ("lora", 9), ("thrash", 4)])
def test_both_servers_get_the_same_options(contenders: Contenders, start: str, slots: int) -> None:
    theirs = options(contenders.command("vllm", start, 8001))
    ours = options(contenders.command("oneseek", start, 8002))
    config = yaml.safe_load(Path(ours["config"]).read_text())
    engine = config["engine"]
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len"):
        assert int(theirs[name.replace("_", "-")]) == config[name]
    assert (config["max_num_seqs"], config["max_model_len"]) == (256, 1024)
    assert (theirs["dtype"], float(theirs["gpu-memory-utilization"])) == (engine["dtype"], 0.85)
    assert engine["gpu_memory_utilization"] == 0.85
    assert (engine["enforce_eager"], engine["specialize_active_lora"], engine["seed"]) == (True, False, 7)
    assert "enforce-eager" in theirs
    assert "no-specialize-active-lora" in theirs
    assert theirs["seed"] == "7"
    assert "enable-prefix-caching" in theirs
    assert config["prefix_caching"] is True
    assert engine["enable_lora"] == ("enable-lora" in theirs) == bool(slots)
    if slots:
        for name, value in (("max_loras", slots), ("max_cpu_loras", 11), ("max_lora_rank", 16)):
            assert int(theirs[name.replace("_", "-")]) == engine[name] == value


def test_the_rust_front_end_gets_the_same_options_and_its_adapters_later(contenders: Contenders) -> None:
    rust = options(contenders.command("vllm-rust", "lora", 8001))
    python = options(contenders.command("vllm", "lora", 8001))
    assert python.pop("lora-modules")
    assert rust == python


def test_every_adapter_is_given_where_lora_is_on(contenders: Contenders) -> None:
    for server in ("oneseek", "vllm"):
        without = contenders.command(server, "base", 1)
        assert not [text for text in without if text.startswith("a1=")]
        given = [text for text in contenders.command(server, "lora", 1) if "=" in text]
        assert given == [f"{name}={path}" for name, path in contenders.adapters.items()]


def test_without_a_gpu_its_memory_is_no_matter(tmp_path: Path) -> None:
    found = Contenders(tmp_path, Path(sys.executable), tmp_path / "base", {}, SETTINGS, on_gpu=False)
    assert "gpu-memory-utilization" not in options(found.command("vllm", "base", 1))
