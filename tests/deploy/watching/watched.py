"""A server under load, and a real Prometheus with the shipped configuration that scrapes it.

The intervals of the shipped rules are minutes and hours; here they are seconds, by `quick`.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.registry.registry import Base, Registry
from tests.server.rolling import scaled
from tests.server.server_process import ServerProcess

SHIPPED = Path(__file__).resolve().parents[3] / "deploy" / "prometheus"
KEY, ADMIN, METRICS_KEY = "a-tenants-key", "an-admins-key", "for-prometheus"
SHADOWED, DIVIDED, FRAIL = "watched-en", "watched-sv", "watched-frail"
MORE = tuple(f"watched-{number}" for number in range(3))
"""Aliases of one version, more than there are slots."""
SLOTS = 5
LONG = " Berätta mer om huset vid sjön, om båten och om vägen dit. Hur långt är det dit?" * 2
_MINUTES, _HOURS = re.compile(r"\b(\d+)m\b"), re.compile(r"\b(\d+)h\b")


def quick(rules: str) -> str:
    """The rules with a second for each minute of theirs, at least 3, and 15 for each hour."""
    text = _MINUTES.sub(lambda found: f"{max(3, int(found[1]))}s", rules)
    return _HOURS.sub(lambda found: f"{15 * int(found[1])}s", text)


@contextmanager
def prometheus(
    program: str, folder: Path, url: str, key: str, interval: str = "500ms"
) -> Generator[httpx.Client]:
    """The shipped configuration on a server: its intervals are shorter, its target and key are set."""
    shutil.copytree(SHIPPED, folder)
    (folder / "oneseek.key").write_text(key)
    configuration = folder / "prometheus.yml"
    text = configuration.read_text(encoding="utf-8")
    text = re.sub(r"(_interval|_timeout): 1[05]s", rf"\1: {interval}", text)
    text = text.replace("# authorization:", "authorization:")
    text = text.replace("127.0.0.1:8000", url.removeprefix("http://").rstrip("/"))
    configuration.write_text(text, encoding="utf-8")
    for rules in (folder / "rules").iterdir():
        rules.write_text(quick(rules.read_text(encoding="utf-8")), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as client:
            _until_scraped(client, process, folder / "log")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _until_scraped(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.HTTPError):  # 503 while it reads its own files
            client.get("/query", params={"query": "vector(1)"}).raise_for_status()
            if value(client, 'up{job="oneseek"}') == 1:
                return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def vector(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """What a query returns now."""
    answer = client.get("/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def value(client: httpx.Client, query: str) -> float | None:
    """The first value that a query returns now."""
    found = vector(client, query)
    return float(found[0]["value"][1]) if found else None


def firing(client: httpx.Client) -> set[tuple[str, str]]:
    """Name and adapter of every alert that fires."""
    alerts = client.get("/alerts").json()["data"]["alerts"]
    return {
        (one["labels"]["alertname"], one["labels"].get("adapter", ""))
        for one in alerts
        if one["state"] == "firing"
    }


@dataclass
class LoadedServer:
    """A server on the mini base: an alias with a canary, one with a shadow, more adapters than slots."""

    process: ServerProcess
    registry: Registry
    url: str
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def ask(self, model: str, text: str, key: str = KEY) -> int:
        """The status of one short answer."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 6}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60
        ).status_code

    def change(self, path: str, **body: Any) -> None:
        """One change by the admin's key."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        reply = httpx.post(f"{self.url}/admin/adapters/{path}", json=body, headers=headers, timeout=60)
        assert reply.status_code == 200, reply.text

    def begin(self) -> None:
        """Divide an alias, shadow another, and ask until `end`."""
        self.change(f"{DIVIDED}/canary", shares={"v1.0": 50, "v1.1": 50})
        self.change(f"{SHADOWED}/shadow", version="v1.1", share=50)
        self._threads = [threading.Thread(target=self._keep_asking, args=(number,)) for number in range(2)]
        for thread in self._threads:
            thread.start()

    def _keep_asking(self, number: int) -> None:
        texts = cycle(["Vem är du?", "Who are you, and what can you do?", "Hej! Vad heter du?", LONG])
        for count, model in enumerate(cycle([DIVIDED, SHADOWED, *MORE, "auto", "base", "nobody"])):
            if self._stop.is_set():
                return
            self.ask(model, f"{next(texts)} {count % 7 + number}")

    def end(self) -> None:
        """Stop asking."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def loaded_server(folder: Path) -> Generator[LoadedServer]:
    """A server in a process of its own, asked until the block ends."""
    home = folder / "home"
    registry = Registry(home, Ledger.open(home / "ledger"))
    found = find_base(folder)
    base = Base.read(found, home / "cache")
    versions = [(DIVIDED, "v1.0"), (DIVIDED, "v1.1"), (SHADOWED, "v1.0"), (SHADOWED, "v1.1")]
    for number, (alias, version) in enumerate([*versions, *((one, "v1.0") for one in (*MORE, FRAIL))]):
        adapter = scaled(folder / f"{alias}-{version}", 1 - number / 40)
        registry.add(adapter, base=base, alias=alias, version=version)
    options = ("--max-adapters", str(SLOTS), "--max-num-seqs", "4", "--follow-registry", "0")
    keys = ("--api-keys", KEY, "--admin-keys", ADMIN, "--metrics-keys", METRICS_KEY)
    process = ServerProcess(found.path, folder, *options, *keys)
    try:
        server = LoadedServer(process, registry, process.url())
        server.begin()
        try:
            yield server
        finally:
            server.end()
    finally:
        process.end()


def weights_of(server: LoadedServer, alias: str) -> Path:
    """The weights of the one version of an alias in the registry."""
    (file,) = (server.process.home / "registry").glob(f"**/{alias}*/**/adapter_model.safetensors")
    return file
