"""How contenders are started, and what is said of one that cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.cli.options import BenchMistakeError
from bench.cli.run import build_parser
from bench.cli.server import ServerChoice, start_options
from bench.contenders.adapters import BASE, MINI_ADAPTERS, random_adapters, shape_of
from bench.contenders.launch import CONTENDERS, LLAMA_CONTEXT, ROOT, StartOptions
from bench.contenders.merged import plain_copy
from bench.contenders.start import started
from bench.scenarios.catalogue import find_scenario


def command(name: str, options: StartOptions) -> list[str]:
    return list(CONTENDERS[name].launch(options, 8123).command)


def test_vllm_gets_the_adapters_and_their_rank(tmp_path: Path) -> None:
    words = command("vllm", StartOptions(tmp_path, slots=4, streams=64, options=("--dtype", "float32")))
    assert words[words.index("--max-loras") + 1] == "4"
    ranks = [json.loads((path / "adapter_config.json").read_text())["r"] for path in MINI_ADAPTERS.values()]
    assert words[words.index("--max-lora-rank") + 1] == str(max(ranks))
    assert [word.partition("=")[0] for word in words if word.startswith("oneseek-mini")] == list(
        MINI_ADAPTERS
    )
    assert words[-4:] == ["--max-num-seqs", "64", "--dtype", "float32"]


def test_vllms_rust_front_end_takes_none_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = tmp_path / "vllm-rs"
    front_end.touch()
    monkeypatch.setenv("VLLM_RUST_FRONTEND_PATH", str(front_end))
    launch = CONTENDERS["vllm-rust"].launch(StartOptions(tmp_path), 8123)
    assert "--lora-modules" not in launch.command
    assert launch.env["VLLM_USE_RUST_FRONTEND"] == "1"
    weights = next(iter(MINI_ADAPTERS.values())).resolve().parent
    assert launch.env["VLLM_RUNTIME_LORA_ALLOWED_PATH_PREFIXES"] == str(weights)
    assert CONTENDERS["vllm-rust"].loads_over_http
    front_end.unlink()
    with pytest.raises(RuntimeError, match="vllm-rs"):
        CONTENDERS["vllm-rust"].launch(StartOptions(tmp_path), 8123)


def test_llama_cpp_needs_its_program_and_its_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="LLAMA_SERVER"):
        command("llama.cpp", StartOptions(tmp_path))
    monkeypatch.setenv("LLAMA_SERVER", "/opt/llama-server")
    with pytest.raises(RuntimeError, match="--gguf"):
        command("llama.cpp", StartOptions(tmp_path, python=without_packages(tmp_path)))
    words = command("llama.cpp", StartOptions(tmp_path, gguf=tmp_path / "base.gguf", streams=16))
    assert words[:3] == ["/opt/llama-server", "-m", str(tmp_path / "base.gguf")]
    assert words[words.index("-np") + 1] == "16"
    assert int(words[words.index("-c") + 1]) == 16 * LLAMA_CONTEXT, "it divides them among the streams"


def without_packages(folder: Path) -> Path:
    """An interpreter that has the standard library alone."""
    script = folder / "bare-python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    script.chmod(0o755)
    return script


def test_oneseek_on_vllms_engine_is_told_the_rank(tmp_path: Path) -> None:
    launch = CONTENDERS["oneseek-vllm"].launch(StartOptions(tmp_path, options=("--seed", "1")), 8123)
    words = list(launch.command)
    assert words[words.index("--engine") + 1] == "vllm"
    ranks = [json.loads((path / "adapter_config.json").read_text())["r"] for path in MINI_ADAPTERS.values()]
    assert words[words.index("--max-lora-rank") + 1] == str(max(ranks))
    assert launch.env["HF_HUB_OFFLINE"] == "1"


def test_an_interpreter_without_the_contender_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"\bvllm\b.*\bvllm\b.*--python\b"),
        started("vllm", StartOptions(tmp_path)),
    ):
        pass


def test_a_checkout_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "other"
    (checkout / "server").mkdir(parents=True)
    (checkout / "server" / "__init__.py").touch()
    (checkout / "server" / "__main__.py").write_text("raise SystemExit('the other tree')")
    monkeypatch.chdir(ROOT)
    options = StartOptions(tmp_path, checkout=checkout)
    with pytest.raises(RuntimeError, match="the other tree"), started("oneseek", options):
        pass


def test_another_tree_is_given_the_adapters(tmp_path: Path) -> None:
    assert "--adapters" not in command("oneseek", StartOptions(tmp_path))
    words = command("oneseek", StartOptions(tmp_path, checkout=tmp_path))
    given = [words[number + 1] for number, word in enumerate(words) if word == "--adapters"]
    assert given == [f"{name}={path}" for name, path in MINI_ADAPTERS.items()]


def test_random_adapters_are_of_the_bases_shape_and_made_once(tmp_path: Path) -> None:
    made = random_adapters(tmp_path, BASE, 2)
    assert list(made) == ["zipf-0001", "zipf-0002"]
    first = made["zipf-0001"] / "adapter_model.safetensors"
    before = first.stat().st_mtime_ns
    assert random_adapters(tmp_path, BASE, 2) == made
    assert first.stat().st_mtime_ns == before
    config = json.loads((BASE / "config.json").read_text())
    assert shape_of(BASE).hidden_size == config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    with pytest.raises(ValueError, match="num_hidden_layers"):
        shape_of(tmp_path)


def test_a_server_is_started_with_what_the_scenarios_need(tmp_path: Path) -> None:
    choice = chosen("--work", str(tmp_path), "--users", "40")
    options, paths = start_options(choice, "oneseek", (find_scenario("zipf-16"),))
    assert (len(options.adapters), options.slots, options.streams, paths) == (16, 8, 40, ())
    options, paths = start_options(choice, "oneseek", (find_scenario("mixed"), find_scenario("hot-swap")))
    assert (options.adapters, options.slots, len(paths)) == (MINI_ADAPTERS, 0, 2)


def test_a_front_ends_server_has_no_adapters(tmp_path: Path) -> None:
    plain = find_scenario("front-end")
    options, _ = start_options(chosen("--work", str(tmp_path)), "oneseek-vllm", (plain,))
    assert options.adapters == {}
    assert options.base != BASE
    assert (options.base / "config.json").read_bytes() == (BASE / "config.json").read_bytes()
    assert "enable_lora=false" in command("oneseek-vllm", options), "as vLLM's own server without adapters"
    assert "--enable-lora" not in command("vllm", options)


def test_options_of_the_engine_go_to_every_contender_on_vllm(tmp_path: Path) -> None:
    given = ("--engine-option", "enforce_eager=true", "--engine-option", "block_size=32")
    choice = chosen("--work", str(tmp_path), *given)
    theirs = command("vllm", start_options(choice, "vllm")[0])
    assert theirs[-3:] == ["--enforce-eager", "--block-size", "32"]
    ours = command("oneseek-vllm", start_options(choice, "oneseek-vllm")[0])
    named = [ours[number + 1] for number, word in enumerate(ours) if word == "--engine-options"]
    assert named == ["enforce_eager=true", "block_size=32"]
    with pytest.raises(BenchMistakeError, match="--engine-option"):
        start_options(choice, "oneseek")


def chosen(*flags: str) -> ServerChoice:
    return ServerChoice.read(build_parser().parse_args(flags))


def test_a_contender_may_have_an_interpreter_of_its_own() -> None:
    choice = chosen("--python", "/env/python", "--python", "vllm=/other/python", "--start", "vllm")
    assert choice.python_of("oneseek") == Path("/env/python")
    assert choice.python == choice.python_of("vllm") == Path("/other/python")
    assert chosen().python_of("vllm") == Path(sys.executable)
    for wrong in ("vlm=/python", "vllm="):
        with pytest.raises(BenchMistakeError, match="--python"):
            chosen("--python", wrong)


def test_a_plain_copy_is_the_base_alone(tmp_path: Path) -> None:
    copy = plain_copy(BASE, tmp_path / "plain")
    assert {path.name for path in copy.iterdir()} == {path.name for path in BASE.iterdir()}
    assert (copy / "config.json").read_bytes() == (BASE / "config.json").read_bytes()
    plain_copy(BASE, tmp_path / "plain")
