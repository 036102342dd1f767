"""A whole server on the device: both languages at once, with the answers of a server on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.device.serving import answer, served

ASKED = [
    ("auto", "Who are you?", "oneseek-mini-en"),
    ("auto", "Vem är du?", "oneseek-mini-sv"),
    ("base", "Who are you?", "base"),
    ("auto", "What can you do?", "oneseek-mini-en"),
    ("auto", "Vad kan du göra?", "oneseek-mini-sv"),
]
"""Adapter that is asked for, question, adapter that answers."""


def answers(client: httpx.Client) -> list[tuple[str, str]]:
    """To every question, all asked at once."""
    with ThreadPoolExecutor(len(ASKED)) as pool:
        asked = [pool.submit(answer, client, adapter, question) for adapter, question, _ in ASKED]
        return [future.result() for future in asked]


def test_a_server_on_the_device_says_what_one_on_the_cpu_says(tmp_path: Path) -> None:
    said: dict[str, list[tuple[str, str]]] = {}
    for device in ("webgpu", "cpu"):
        (tmp_path / device).mkdir()
        with served(tmp_path / device, "--device", device, "--dtype", "fp32") as client:
            said[device] = answers(client)
        log = (tmp_path / device / "log").read_text()
        assert f"embedded engine on {'the CPU' if device == 'cpu' else device}" in log, log
    assert [name for _, name in said["webgpu"]] == [name for *_, name in ASKED]
    assert said["webgpu"] == said["cpu"]
    assert len({text for text, _ in said["webgpu"]}) == len(ASKED)
