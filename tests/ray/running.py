"""A cluster as its tests see it: over HTTP, and by the processes of its replicas."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.ray.cluster import ROOT

START_SECONDS = 120
ADMIN = "admin-key"
ENGINE = "ray::ServeReplica:oneseek:engine"


class Cluster:
    """`tests.ray.cluster` in a process of its own. Its log is in `folder`."""

    def __init__(
        self, folder: Path, config: str, replicas: int = 2, most: int = 0, scale_after: float = 0
    ) -> None:
        self.folder = folder
        self.config = folder / "oneseek.yaml"
        self.config.write_text(config, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "cluster.log"
        command = [sys.executable, "-m", "tests.ray.cluster", str(self.config), str(port)]
        command += ["--replicas", str(replicas), "--most", str(most), "--scale-after", str(scale_after)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while not re.search("^ready$", self.log.read_text(), re.MULTILINE):
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            assert time.monotonic() < end, self.log.read_text()[-5000:]
            time.sleep(0.1)

    def end(self) -> None:
        """Take it down, and whatever it left."""
        self.client.close()
        alive = self.process.poll() is None
        left = psutil.Process(self.process.pid).children(recursive=True) if alive else []
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for one in psutil.wait_procs(left, 5)[1]:
            one.kill()

    def replicas(self) -> list[psutil.Process]:
        """The processes of the engine's replicas."""
        found: list[psutil.Process] = []
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                # Ray renames a process for the call that it works on.
                if one.cmdline()[:1] and one.cmdline()[0].startswith(ENGINE):
                    found.append(one)
            except psutil.Error:
                continue
        return found

    def metrics(self) -> dict[str, float]:
        """The ingress's `/metrics`: name and labels → value."""
        reply = self.client.get("/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
        lines = [line for line in reply.raise_for_status().text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line)}

    def admin(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a change of the adapters."""
        reply = self.client.post(path, json=body, headers={"Authorization": f"Bearer {ADMIN}"})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def until(self, holds: Callable[[], bool], seconds: float) -> float:
        """Seconds until `holds` does."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, self.log.read_text()[-5000:]
            time.sleep(0.1)
        return time.monotonic() - began


def given(metrics: dict[str, float]) -> dict[str, float]:
    """Requests that each replica was given, by its id."""
    pattern = re.compile(r'oneseek_ray_replica_requests_total\{replica="(\w+)"\}')
    return {found[1]: value for name, value in metrics.items() if (found := pattern.fullmatch(name))}
