"""The self-test on a device, from the command line: who serves, what is told, and what ends the start."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.engines.embedded.model.builder import DATA_FILE
from tests.device.serving import answer, served, start

FALLBACKS = 'oneseek_device_fallbacks_total{device="webgpu",reason="logits"} 1.0'


@dataclass
class Seen:
    """A server that was up for a moment."""

    health: dict[str, Any]
    metrics: str
    log: str
    adapter: str
    """That answered in English."""


def seen(home: Path, *options: str) -> Seen:
    home.mkdir(exist_ok=True)
    with served(home, *options) as client:
        _, adapter = answer(client, "auto", "Who are you?")
        health, metrics = told(client)
    return Seen(health, metrics, (home / "log").read_text(), adapter)


def told(client: httpx.Client) -> tuple[dict[str, Any], str]:
    return client.get("/health").json(), client.get("/metrics").text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selftest")


@pytest.fixture(scope="module")
def by_name(scratch: Path) -> Seen:
    """The first server: it builds the graph, and has the CPU's logits computed and kept."""
    return seen(scratch / "sound", "--device", "webgpu")


@pytest.fixture
def damaged(scratch: Path, by_name: Seen, tmp_path: Path) -> Path:
    """A home whose graph for devices is no longer what the CPU's logits were computed from."""
    shutil.copytree(scratch / "sound", tmp_path / "damaged")
    (data,) = tmp_path.glob(f"damaged/home/graphs/*/portable-fp16-*/{DATA_FILE}")
    content = bytearray(data.read_bytes())
    half = len(content) // 2
    content[half:] = bytes(value ^ 0x80 for value in content[half:])
    data.write_bytes(content)
    return tmp_path / "damaged"


def test_a_device_that_computes_as_the_cpu_does_serves(by_name: Seen) -> None:
    assert by_name.health["device"] == {
        "name": "webgpu",
        "provider": "WebGpuExecutionProvider",
        "precision": "fp16",
    }
    assert by_name.health["device_fallback"] is None
    assert by_name.adapter == "oneseek-mini-en"
    assert "self-test base: the logits of the base on the device webgpu differ" in by_name.log
    assert (
        by_name.log.count("the logits of the adapter on the device webgpu differ from the CPU's by up to")
        == 2
    )
    assert "oneseek_device_fallbacks_total{" not in by_name.metrics


def test_auto_takes_it(scratch: Path, by_name: Seen) -> None:
    found = seen(scratch / "sound", "--device", "auto")
    assert found.health["device"] == by_name.health["device"]
    assert found.health["device_fallback"] is None


def test_auto_goes_on_to_the_cpu_where_the_logits_are_others_and_says_so(damaged: Path) -> None:
    found = seen(damaged, "--device", "auto")
    assert found.health["device"]["name"] == "cpu"
    assert found.health["device_fallback"]["device"] == "webgpu"
    assert "webgpu" in found.health["device_fallback"]["reason"]
    assert "webgpu" in found.log
    assert FALLBACKS in found.metrics
    assert found.adapter == "oneseek-mini-en"


def test_by_name_it_is_refused(damaged: Path) -> None:
    process = start(damaged, "--port", "0", "--device", "webgpu")
    assert process.wait(timeout=120) == 1
    log = (damaged / "log").read_text()
    assert "the logits of the base on the device webgpu differ from the CPU's by too much" in log
    assert "Traceback" not in log
