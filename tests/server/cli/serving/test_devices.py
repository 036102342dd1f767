"""Devices on the command line: what is listed, what is refused, and how auto ends on the CPU."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from server.__main__ import main
from server.engines.embedded.launch import survey
from server.engines.embedded.runners.device import flavours
from server.engines.embedded.runners.device.flavours import Flavour
from server.engines.embedded.runners.device.hardware import Card
from server.engines.embedded.runners.windowsml.catalogue import open_catalogue
from server.metrics.engine_state import DeviceFallback, DeviceInfo, EngineInfo
from server.metrics.metrics import Metrics
from tests.server.engines.embedded.runners.windowsml.machine import recorded_provider, windows

Out = pytest.CaptureFixture[str]


@pytest.fixture
def arguments(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["--base-model", str(tiny_base), "--home", str(tmp_path / "home")]


def test_each_device_is_listed_with_what_it_would_run(arguments: list[str], capsys: Out) -> None:
    assert main(["devices", "--json", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in shown["devices"]}
    assert list(rows) == ["windowsml", "directml", "webgpu", "cpu"]
    assert rows["cpu"]["present"]
    assert rows["cpu"]["fits"] is True
    assert (rows["cpu"]["fit"]["variant"], rows["cpu"]["fit"]["dtype"]) == ("fused", "fp32")
    for name in ("windowsml", "directml", "webgpu"):
        assert (rows[name]["fit"]["variant"], rows[name]["fit"]["dtype"]) == ("portable", "fp16")
        assert rows[name]["present"] is (rows[name]["remedy"] is None)
    assert shown["machine"]["memory"] > shown["machine"]["available"] > 0


def test_the_list_is_for_people_too(
    arguments: list[str], capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        survey, "cards", lambda: (Card("NVIDIA GeForce RTX 3070", 8 << 30), Card("AMD", None))
    )
    assert main(["devices", *arguments, "--max-num-seqs", "2"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^cpu +.*\bCPUExecutionProvider\b.*\bonnxruntime\b", told, re.MULTILINE)
    assert "NVIDIA GeForce RTX 3070, 8.0 GiB" in told
    assert "AMD, " in told
    assert re.search(r"\b2 \w+ of 256 \w+: .*\b8\.0 GiB\b", told)


def test_a_smaller_card_does_not_fit(
    arguments: list[str], capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "cards", lambda: (Card("small", 1 << 20),))
    assert main(["devices", "--json", *arguments]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["devices"]}
    assert rows["webgpu"]["fits"] is False


@pytest.mark.parametrize("verb", ["serve", "devices"])
def test_two_flavours_are_refused_before_anything_is_built(
    verb: str, arguments: list[str], capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = (Flavour("onnxruntime", "1.32.0"), Flavour("onnxruntime-webgpu", "1.27.0"))
    monkeypatch.setattr(flavours, "find_installed", lambda: two)
    port = ["--port", "0"] if verb == "serve" else []
    assert main([verb, *port, *arguments, "--device", "webgpu"]) == 1
    told = capsys.readouterr().err
    assert re.search(r"\bonnxruntime 1\.32\.0\b.*\bonnxruntime-webgpu 1\.27\.0\b", told)
    assert re.search(
        r"\bpip uninstall -y onnxruntime onnxruntime-webgpu .* pip install onnxruntime-webgpu==", told
    )
    assert not (tmp_path / "home" / "graphs").exists()


def test_a_device_that_is_asked_for_by_name_and_is_not_there_ends_the_start(
    arguments: list[str], capsys: Out
) -> None:
    import onnxruntime

    if "WebGpuExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    assert main(["serve", "--port", "0", *arguments, "--device", "webgpu"]) == 1
    assert "onnxruntime-webgpu" in capsys.readouterr().err


def test_windows_mls_providers_are_listed_and_one_is_installed(
    arguments: list[str], capsys: Out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row() -> dict[str, Any]:
        assert main(["devices", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)["devices"][0]

    with windows(tmp_path / "machine.json", monkeypatch) as machine:
        machine.offer(
            recorded_provider("CPUExecutionProvider", "NotPresent"),
            recorded_provider("QNNExecutionProvider", "NotPresent", "Uncertified"),
        )
        before = row()
        assert (before["present"], machine.downloads) == (False, [])
        assert [offer["state"] for offer in before["offers"]] == ["absent", "absent"]
        assert main(["devices", *arguments]) == 0
        assert "oneseek devices install CPUExecutionProvider" in capsys.readouterr().out
        assert main(["devices", "install"]) == 0
        assert machine.downloads == ["CPUExecutionProvider"]
        capsys.readouterr()
        after = row()
        assert (after["present"], after["provider"], after["remedy"]) == (True, "CPUExecutionProvider", None)
        assert [offer["state"] for offer in after["offers"]] == ["installed", "absent"]
        assert main(["devices", "install", "QNNExecutionProvider"]) == 0
        assert machine.downloads == ["CPUExecutionProvider", "QNNExecutionProvider"]
        assert main(["devices", "install", "NoSuchProvider"]) == 1


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["doctor"]])
def test_without_windows_ml_the_device_is_refused_with_a_remedy(
    command: list[str], arguments: list[str], capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "windowsml", None)
    open_catalogue.cache_clear()
    assert main([*command, *arguments, "--device", "windowsml"]) == 1
    captured = capsys.readouterr()
    assert "device windowsml" in captured.out + captured.err


def test_what_was_given_up_is_counted() -> None:
    metrics = Metrics()
    fallback = DeviceFallback("webgpu", "logits", "webgpu computes the base off by 7")
    info = EngineInfo(
        name="embedded",
        base_digest="sha256:0",
        context=1,
        vocabulary=1,
        blends=True,
        max_adapters=1,
        device=DeviceInfo("cpu", "CPUExecutionProvider", "fp32", fallback),
    )
    metrics.runs(info)
    value = metrics.registry.get_sample_value
    labels = {"device": "cpu", "provider": "CPUExecutionProvider", "precision": "fp32"}
    assert value("oneseek_device_info", labels) == 1
    assert value("oneseek_device_fallbacks_total", {"device": "webgpu", "reason": "logits"}) == 1
