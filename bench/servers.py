"""Start the servers of a benchmark, wait until they answer, and stop them."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    """Return a TCP port on the loopback interface that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch_json(url: str) -> Any:
    """Send a GET request to `url` and return the JSON of the answer."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server that a benchmark started."""

    url: str
    process: int
    """Process id of the server's main process."""

    def event_loop_seconds(self) -> float:
        """CPU seconds of the process's first thread, which runs the HTTP event loop in OneSeek's and vLLM's
        servers.
        """
        return next(
            thread.user_time + thread.system_time
            for thread in psutil.Process(self.process).threads()
            if thread.id == self.process
        )

    @property
    def alive(self) -> bool:
        """True if the server's main process is still running."""
        try:
            return psutil.Process(self.process).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def prefix_hits(self) -> float | None:
        """Number of tokens that vLLM has found in its prefix cache since its start. None if the server has no
        such metric.
        """
        try:
            with urllib.request.urlopen(self.url + "/metrics", timeout=10) as response:
                text = response.read().decode()
        except (urllib.error.URLError, OSError):
            return None
        found = re.findall(r"^vllm:prefix_cache_hits_total(?:{.*})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found)) if found else None


@contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, env: Mapping[str, str] | None = None, wait: float = 300
) -> Generator[Server]:
    """Run the server that `command` starts. Yield it when `/health` answers 200, and stop it when the `with`
    block ends.

    Raises `RuntimeError` with the end of its log if the server exits or does not answer within `wait`
    seconds.
    """
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            list(command),
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | dict(env or {}),
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        _wait(process, url, log, wait)
        yield Server(url, process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _end_with_parent() -> None:
    """Make the kernel end this process when its parent process dies, so that a killed benchmark leaves no
    server on the GPU.
    """
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, wait: float) -> None:
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url + "/health", timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(
        f"the server at {url} did not start; its log ends with: {log.read_text(errors='replace')[-3000:]}"
    )


def oneseek(
    model: Path, adapters: Mapping[str, Path], port: int, *options: str, python: Path | None = None
) -> list[str]:
    """Return the command line that starts OneSeek's server with `model` and `adapters`, in this Python
    interpreter or in `python`.
    """
    named = [item for name, path in adapters.items() for item in ("--adapters", f"{name}={path}")]
    serve = ["serve", "--base-model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    return [str(python or sys.executable), "-m", "server", *serve, *named, *options]


def vllm(
    python: Path,
    model: Path,
    adapters: Mapping[str, Path],
    port: int,
    *options: str,
    slots: int | None = None,
    rank: int = 8,
    name_adapters: bool = True,
) -> list[str]:
    """Return the command line that starts vLLM's OpenAI-compatible server with `model`, under the name
    `base`.

    With `adapters`, LoRA is enabled, with `slots` adapter slots or else one for each adapter. If
    `name_adapters` is false, the adapters must be loaded over HTTP afterwards.
    """
    command = [*_vllm_serve(python, model), "--served-model-name", "base"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    if adapters:
        command += ["--enable-lora", "--max-loras", str(slots or len(adapters)), "--max-lora-rank", str(rank)]
    if adapters and name_adapters:
        command += ["--lora-modules", *(f"{name}={path}" for name, path in adapters.items())]
    return [*command, *options]


def _vllm_serve(python: Path, model: Path) -> list[str]:
    """Return the command `vllm serve`. If `python` does not find the metadata of the package vllm, which the
    command needs, return vLLM's server module instead.
    """
    asked = "import importlib.metadata; importlib.metadata.version('vllm')"
    if subprocess.run([str(python), "-c", asked], capture_output=True).returncode == 0:
        return [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
    return [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
