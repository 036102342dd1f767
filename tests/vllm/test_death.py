"""The server as the command line runs it on vLLM, and what becomes of it when its engine core is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from server.asgi.listening import DEAD_SECONDS

pytestmark = pytest.mark.slow

STREAMS = 8
CONFIG = """\
engine:
  kind: vllm
  dtype: float32
  enforce_eager: true
  block_size: 32
  num_gpu_blocks_override: 129
max_num_seqs: 16
"""


@dataclass(frozen=True, slots=True)
class Server:
    """`oneseek serve` in a process of its own, ready."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def core(self) -> psutil.Process:
        """vLLM's engine core."""
        children = psutil.Process(self.process.pid).children()
        (core,) = (child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()]))
        return core

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def serving(base: Path, adapters: dict[str, Path], folder: Path, *more: str) -> Generator[Server]:
    config, log = folder / "oneseek.yaml", folder / "log"
    config.write_text(CONFIG)
    listed = [part for name, path in adapters.items() for part in ("--adapters", f"{name}={path}")]
    command = [sys.executable, "-m", "server", "serve", "--config", str(config), "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--home", str(folder / "home"), "--base-model", str(base), *listed, *more],
            stdout=output,
            stderr=output,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    family: list[psutil.Process] = []
    try:
        server = Server(process, ready_address(process, log), log)
        family = server.family()
        yield server
    finally:
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        for child in family:
            if child.is_running():
                child.kill()


def ready_address(process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"ready on (\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def read_stream(url: str, model: str, begun: Callable[[], object]) -> list[str]:
    """The data of one long streamed answer; `begun` is called at the first."""
    body = {"model": model, "prompt": [1, 5, 9], "max_tokens": 250, "ignore_eos": True, "stream": True}
    frames: list[str] = []
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as reply:
        assert reply.status_code == 200
        for line in reply.iter_lines():
            if line.startswith("data: "):
                frames.append(line.removeprefix("data: "))
                if len(frames) == 1:
                    begun()
    return frames


def test_a_killed_engine_core_ends_the_server_in_words(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    with serving(tiny_base, tiny_adapters, tmp_path) as server, ThreadPoolExecutor(STREAMS) as pool:
        assert httpx.get(f"{server.url}/ready").status_code == 200
        family, all_begun = server.family(), threading.Barrier(STREAMS + 1, timeout=60)
        models = list(tiny_adapters) * (STREAMS // 2)
        streams = [pool.submit(read_stream, server.url, model, all_begun.wait) for model in models]
        all_begun.wait()

        server.core().send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while httpx.get(f"{server.url}/ready").status_code == 200:
            assert time.monotonic() - killed < 1, "still ready a second after its engine core has gone"
            time.sleep(0.01)

        refused = httpx.post(f"{server.url}/v1/completions", json={"model": "en", "prompt": [1]})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_dead"
        for stream in streams:
            *_, error, done = stream.result(timeout=10)
            assert json.loads(error)["error"]["code"] == "engine_dead"
            assert done == "[DONE]"

        assert server.process.wait(DEAD_SECONDS + 20) == 1
        assert time.monotonic() - killed >= DEAD_SECONDS, "probes and clients had no time to learn of it"
        gone, left = psutil.wait_procs(family, timeout=20)
        assert len(gone) == len(family)
        assert left == []


def becomes_ready(server: Server, wanted: bool, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (httpx.get(f"{server.url}/ready").status_code == 200) is not wanted:
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.05)


def test_a_core_that_is_killed_or_hangs_is_started_again(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    """With its adapters, while the server itself goes on."""
    more = ("--restart-engine", "2", "--step-timeout", "15")
    with serving(tiny_base, tiny_adapters, tmp_path, *more) as server, ThreadPoolExecutor(2) as pool:
        for number in (signal.SIGKILL, signal.SIGSTOP):
            core, begun = server.core(), threading.Barrier(3, timeout=60)
            streams = [pool.submit(read_stream, server.url, model, begun.wait) for model in tiny_adapters]
            begun.wait()
            core.send_signal(number)
            becomes_ready(server, wanted=False, seconds=12)
            for stream in streams:
                *_, error, done = stream.result(timeout=30)
                assert json.loads(error)["error"]["code"] == "engine_dead"
                assert done == "[DONE]"
            becomes_ready(server, wanted=True, seconds=240)
            assert not core.is_running() or core.status() == psutil.STATUS_ZOMBIE
            for name in tiny_adapters:
                body = {"model": name, "prompt": [1, 5], "max_tokens": 2}
                assert httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).status_code == 200
        samples = httpx.get(f"{server.url}/metrics").text
        for reason in ("died", "stalled"):
            assert re.search(rf'oneseek_engine_failures_total{{.*reason="{reason}"}} 1.0', samples)
        assert re.search(r'oneseek_engine_restarts_total{.*outcome="ok"} 2.0', samples)


def test_it_answers_with_receipts_and_ends_at_a_signal_leaving_nothing(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    with serving(tiny_base, tiny_adapters, tmp_path) as server:
        for name in tiny_adapters:
            body = {"model": name, "messages": [{"role": "user", "content": "Vem är du?"}], "max_tokens": 4}
            reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
            assert reply.status_code == 200, reply.text
            assert reply.headers["x-oneseek-adapter"].startswith(f"{name}@")
            assert reply.headers["x-oneseek-adapter-digest"].startswith("sha256:")
            assert reply.json()["usage"]["completion_tokens"] == 4
        assert "vllm:" in httpx.get(f"{server.url}/metrics").text
        family = server.family()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0
        gone, _ = psutil.wait_procs(family, timeout=20)
        assert len(gone) == len(family)
