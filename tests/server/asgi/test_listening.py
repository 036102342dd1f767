"""How a server begins and ends, as the command line runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from server.__main__ import main
from server.asgi.listening import bind
from tests.server.http_server import CONTEXT

ASK = {"prompt": "Vem", "max_tokens": 240, "n": 16, "ignore_eos": True, "stream": True}
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals that a process can be sent")


def heed_interrupts() -> None:
    """A test run in the background ignores Ctrl-C, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """`oneseek serve` in a process of its own."""

    def __init__(self, base: Path, folder: Path, *arguments: str) -> None:
        self.log = folder / "log"
        common = ("--port", "0", "--home", str(folder / "home"), "--threads", "1", "--base-model", str(base))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve", *common, *arguments],
                stdout=log,
                stderr=log,
                preexec_fn=heed_interrupts if sys.platform != "win32" else None,
            )

    def url(self) -> str:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            found = re.search(r"ready on (\S+)", self.log.read_text())
            if found:
                return found[1]
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def signal_while_streaming(self, count: int) -> list[str]:
        """The lines of a long stream during which the server is sent Ctrl-C `count` times."""
        with httpx.stream("POST", self.url() + "/v1/completions", json=ASK, timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            for _ in range(count):
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            return [line for line in lines if line]


@pytest.fixture
def serve(tiny_base: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Server:
            server = Server(tiny_base, tmp_path, "--max-num-seqs", "1", *arguments)
            stack.callback(server.process.wait)
            stack.callback(server.process.kill)
            return server

        yield start


def error_of(lines: list[str]) -> str:
    *_, last, done = lines
    assert done == "data: [DONE]"
    return json.loads(last.removeprefix("data: "))["error"]["code"]


@posix
@pytest.mark.parametrize(("drain", "signals"), [("0", 1), ("60", 2)])
def test_streams_that_cannot_end_in_time_are_told(
    serve: Callable[..., Server], drain: str, signals: int
) -> None:
    server = serve("--drain-seconds", drain)
    assert error_of(server.signal_while_streaming(signals)) == "engine_dead"
    assert server.process.wait(20) == 130
    assert "Traceback" not in server.log.read_text()
    assert "ERROR" not in server.log.read_text()


@posix
def test_streams_have_their_time_to_end(serve: Callable[..., Server]) -> None:
    server = serve("--drain-seconds", "60")
    *_, last, done = server.signal_while_streaming(1)
    assert '"finish_reason":"length"' in last
    assert done == "data: [DONE]"
    assert server.process.wait(20) == 130


def mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and the one line that is no step of the start."""
    code = main(["serve", "--threads", "1", *arguments])
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if not re.match(r"oneseek +\d+\.\d\ds  ", line)]
    return code, line


def test_a_port_in_use_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--port", port, "--home", str(tmp_path), "--base-model", str(tiny_base)]
        code, line = mistakes(arguments, capsys)
    assert code == 1
    assert f"127.0.0.1:{port}" in line
    assert "another --port" in line
    assert not list(tmp_path.iterdir()), "nothing was built for a server that cannot listen"


def test_a_home_that_cannot_be_written_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "file"
    home.touch()
    code, line = mistakes(["--port", "0", "--home", str(home), "--base-model", str(tiny_base)], capsys)
    assert code == 1
    assert "--home" in line
    assert str(home) in line


def test_memory_for_no_request_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--kv-cache-memory", "1KiB"], capsys)
    assert code == 1
    assert "kv_cache_memory" in line


def test_a_context_beyond_the_base_is_one_line(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--max-model-len", str(CONTEXT + 1)], capsys)
    assert code == 1
    assert f"max_model_len {CONTEXT + 1}" in line


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("config.json", '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}', "'gpt2'"),
        ("model.safetensors", "cut", "model.safetensors"),
    ],
)
def test_a_base_that_cannot_be_served_is_one_line(
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str,
    named: str,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    (base / file).write_text(content)
    code, line = mistakes(["--port", "0", "--home", str(tmp_path), "--base-model", str(base)], capsys)
    assert code == 1
    assert named in line


def test_an_adapter_of_another_base_is_one_line(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sv"
    shutil.copytree(tiny_adapters["sv"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    wide = {key: np.tile(value, (1, 2)) if "lora_A" in key else value for key, value in weights.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    code, line = mistakes([*arguments, "--adapters", f"sv={folder}"], capsys)
    assert code in (1, 2)
    assert "sv" in line


def test_a_graph_that_cannot_be_opened_is_one_line(
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("server.engines.embedded.launch.device_choice.CpuRunner", full)
    arguments = ["--port", "0", "--home", str(tmp_path), "--base-model", str(tiny_base)]
    assert main(["serve", *arguments]) == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage().startswith(
        "the engine cannot open the graph with 96 rows of 256 tokens: no room"
    )


def test_names_with_several_addresses_are_bound_at_each_that_the_machine_has() -> None:
    sockets = bind("localhost", 0)
    addresses = {opened.getsockname()[0] for opened in sockets}
    for opened in sockets:
        opened.close()
    assert "127.0.0.1" in addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 203\.0\.113\.7:0: .*; give another --host"):
        bind("203.0.113.7", 0)
