from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.dispatch import main
from bench.contenders.adapters import BASE
from bench.limits.bases import PACKED
from bench.limits.cpu import measure_cpu, read_bandwidth
from bench.limits.devices import TARGETED, targeted

Out = pytest.CaptureFixture[str]


def run(capsys: Out, *arguments: str) -> tuple[list[str], dict[str, object]]:
    assert main(["limits", *arguments]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    return table, json.loads(last)


def test_every_targeted_device_with_and_without_quantisation(capsys: Out) -> None:
    gpus = [word for key in TARGETED for word in ("--gpu", key)]
    table, told = run(capsys, *gpus, "--base", "mistral-7b", "--adapters", "2", "--rank", "16")
    rows = told["limits"]
    assert isinstance(rows, list)
    assert len(rows) == len(TARGETED) * len(PACKED)
    assert {row["device"] for row in rows} == set(TARGETED)
    for key in TARGETED:
        assert any(line.startswith(targeted(key).name.removesuffix(" SXM")) for line in table), key
    assert all(row["cost_per_million_tokens"] is None for row in rows)
    assert any("does not fit" in line for line in table)


def test_a_price_gives_a_cost(capsys: Out) -> None:
    _, told = run(capsys, "--gpu", "h100", "--quantize", "none", "--price", "h100=3.6")
    (row,) = told["limits"]  # pyright: ignore[reportGeneralTypeIssues]
    assert row["cost_per_million_tokens"] == pytest.approx(1000 / row["tokens_per_second"])


def test_a_base_in_a_folder_on_the_cpu_at_hand(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.limits.cpu.READ_BYTES", 8 << 20)
    _, told = run(capsys, "--gpu", "cpu", "--base", str(BASE), "--prompt", "96", "--answer", "32")
    rows = told["limits"]
    assert isinstance(rows, list)
    assert [row["quantize"] for row in rows] == list(PACKED)
    assert all(row["tokens_per_second"] > 0 for row in rows)
    assert "measured" in rows[0]["source"]


def test_the_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_bandwidth(1, 8 << 20) > 1e8
    device = measure_cpu()
    assert min(device.bandwidth, device.tflops, device.memory) > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--gpu h101", "'h101'"),
        ("--base mistral-9b", "'mistral-9b'"),
        ("--gpu h100 --price h200=1", "h200=1"),
        ("--price h100=free", "h100=free"),
        ("--price h100=0", "h100=0"),
        ("--targets mlp", "'mlp'"),
        ("--streams 0", "streams"),
    ],
)
def test_a_mistake_names_the_word_and_is_2(arguments: str, named: str, capsys: Out) -> None:
    assert main(["limits", "--gpu", "h100", *arguments.split()]) == 2
    assert named in capsys.readouterr().err


def test_a_config_that_lacks_a_size_is_named(tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    assert main(["limits", "--gpu", "h100", "--base", str(tmp_path)]) == 2
    assert "num_hidden_layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[1]", "JSON object"),
        ("[" * 100_000, "config.json"),
        ('{"num_attention_heads": 0}', "num_attention_heads 0"),
        ('{"num_attention_heads": "8"}', "num_attention_heads '8'"),
        ('{"num_attention_heads": 8, "num_hidden_layers": null}', "num_hidden_layers None"),
        ('{"num_attention_heads": 8, "hidden_size": -64}', "hidden_size -64"),
    ],
)
def test_a_damaged_config_is_a_mistake(tmp_path: Path, capsys: Out, content: str, named: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert main(["limits", "--gpu", "h100", "--base", str(tmp_path)]) == 2
    assert named in capsys.readouterr().err
