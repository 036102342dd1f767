"""A whole server on the device: both languages at once, with the answers of a server on the CPU."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from server.settings import PREFIX

ROOT = Path(__file__).resolve().parents[2]
ASKED = [
    ("auto", "Who are you?", "oneseek-mini-en"),
    ("auto", "Vem är du?", "oneseek-mini-sv"),
    ("base", "Who are you?", "base"),
    ("auto", "What can you do?", "oneseek-mini-en"),
    ("auto", "Vad kan du göra?", "oneseek-mini-sv"),
]
"""Adapter that is asked for, question, adapter that answers."""


@contextmanager
def served(home: Path, *options: str) -> Generator[httpx.Client]:
    """`oneseek serve` in a process of its own, ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environ |= {"ONESEEK_HOME": str(home / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "server", "serve", "--port", str(port), *options]
    with (home / "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=home, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
                began = time.monotonic()
                while not is_ready(client):
                    assert process.poll() is None, (home / "log").read_text()
                    assert time.monotonic() - began < 120, (home / "log").read_text()
                    time.sleep(0.1)
                yield client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def answer(client: httpx.Client, adapter: str, question: str) -> tuple[str, str]:
    """What is said, and the name of the adapter by the receipt."""
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 24, "temperature": 0, "model": "oneseek"}
    response = client.post("/v1/chat/completions", json=body, headers={"X-OneSeek-Adapter": adapter})
    assert response.status_code == 200, response.text
    name = response.headers["X-OneSeek-Adapter"].partition("@")[0]
    return response.json()["choices"][0]["message"]["content"], name


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
        assert f"embedded on {device}" in log, log
    assert [name for _, name in said["webgpu"]] == [name for *_, name in ASKED]
    assert said["webgpu"] == said["cpu"]
    assert len({text for text, _ in said["webgpu"]}) == len(ASKED)
