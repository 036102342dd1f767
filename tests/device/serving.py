"""`oneseek serve` on the base that ships, in a process of its own, and what it answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from server.config.settings import PREFIX

ROOT = Path(__file__).resolve().parents[2]


def start(home: Path, *options: str) -> subprocess.Popen[str]:
    """The process; what it says goes to `home / "log"`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environ |= {"ONESEEK_HOME": str(home / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "server", "serve", *options]
    with (home / "log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            command, cwd=home, env=environ, stdout=log, stderr=subprocess.STDOUT, text=True
        )


@contextmanager
def served(home: Path, *options: str) -> Generator[httpx.Client]:
    """A server that is ready, until the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(home, "--port", str(port), *options)
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
