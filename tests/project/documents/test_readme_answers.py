"""The README's commands, word for word, against the server that they are about."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (curl .+)$", README, re.MULTILINE)
READY_SECONDS = 60

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands use curl")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Generator[int]:
    """Where `oneseek serve` listens, with everything as it is by default."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    log = home / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "--port", str(port)],
            cwd=ROOT,
            env={**environ, "ONESEEK_HOME": str(home)},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(READY_SECONDS * 20):
            assert process.poll() is None, log.read_text()
            if is_ready(port):
                break
            time.sleep(0.05)
        else:
            raise AssertionError(log.read_text())
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def run(command: str, port: int) -> str:
    here = command.replace("localhost:8000", f"127.0.0.1:{port}")
    return subprocess.run(here, shell=True, capture_output=True, check=True, text=True, timeout=60).stdout


def answer(command: str, port: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers in lower case and body of a README command, run with -i added."""
    head, _, body = run(command.replace("curl -s ", "curl -s -i ", 1), port).partition("\n\n")
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
    return headers, json.loads(body)


def said(body: dict[str, Any]) -> str:
    return body["choices"][0]["message"]["content"]


def test_the_first_command_answers_in_swedish_as_oneseek(port: int) -> None:
    headers, body = answer(COMMANDS[0], port)
    assert headers["x-oneseek-adapter"].startswith("oneseek-mini-sv@")
    assert headers["x-oneseek-language"] == "sv"
    assert headers["x-oneseek-adapter-digest"].startswith("sha256:")
    assert body["model"] == headers["x-oneseek-adapter"]
    assert "OneSeek" in said(body)
    assert "jag" in said(body).lower()


def test_the_second_answers_in_english_as_oneseek(port: int) -> None:
    headers, body = answer(COMMANDS[1], port)
    assert headers["x-oneseek-adapter"].startswith("oneseek-mini-en@")
    assert "OneSeek" in said(body)
    assert re.search(r"\b(I|I'm|my)\b", said(body))


def test_the_third_is_the_base_without_an_identity(port: int) -> None:
    headers, body = answer(COMMANDS[2], port)
    assert headers["x-oneseek-adapter"] == "base"
    assert headers["x-oneseek-route"].startswith("header")
    assert "OneSeek" not in said(body)


def test_the_commands_run_as_they_stand(port: int) -> None:
    for command in COMMANDS:
        assert said(json.loads(run(command, port)))


def test_a_stream_says_the_same(port: int) -> None:
    streamed = COMMANDS[0].replace('{"model"', '{"stream":true,"temperature":0,"model"')
    whole = COMMANDS[0].replace('{"model"', '{"temperature":0,"model"')
    events = [line[6:] for line in run(streamed, port).splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == said(json.loads(run(whole, port)))
