"""A server started as the pod starts it: its command, variables and settings, with folders for mounts.

Not proven: the image, the read-only root file system, the user's id, and everything that a cluster does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.kubernetes.made import Made
from tests.deploy.kubernetes.manifests import (
    NAMESPACE,
    Manifest,
    Tools,
    environment,
    of_kind,
    only,
    settings_text,
)
from tests.deploy.kubernetes.ports import free_port
from tests.deploy.kubernetes.references import Pod, resolve_pod
from tests.server.server_process import heed_interrupts

SECRET = {"api_keys": "tenant-a,tenant-b", "admin_keys": "operator", "metrics_keys": "for-prometheus"}
VALUES: dict[str, Any] = {
    "keys": {"existingSecret": "oneseek-keys"},
    "config": {"drain_delay": 2, "drain_seconds": 1, "threads": 1},
    "autoscaling": {"kind": "keda"},
    "serviceMonitor": {"enabled": True},
}
LONG = {"model": "base", "prompt": "hi", "stream": True, "n": 16, "max_tokens": 1000, "ignore_eos": True}
"""Many times as long as the drain."""
METRIC = re.compile(r"\b((?:oneseek|vllm)[_:][a-z_]+)")


@dataclass(frozen=True, slots=True)
class Running:
    """A process in a pod's place."""

    manifests: list[Manifest]
    pod: Pod
    process: subprocess.Popen[bytes]
    http: httpx.Client
    log: Path

    def probe(self, name: str) -> httpx.Response:
        get = self.pod.container[name]["httpGet"]
        port = self.pod.ports[get["port"]]
        return httpx.get(f"http://127.0.0.1:{port}{get['path']}", timeout=5)

    def metric(self, name: str) -> float:
        """The sum of its series, where no key is set."""
        text = self.http.get("/metrics").text
        return sum(float(value) for value in re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE))

    def wait_for(self, name: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if self.probe(name).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())


def start(manifests: list[Manifest], folder: Path) -> Running:
    """What the kubelet would start, with each mount as a folder beneath `folder`."""
    pod = resolve_pod(only(manifests, "Deployment"))

    def here(text: str) -> str:
        inside = [path for path in pod.mounts if text == path or text.startswith(f"{path}/")]
        return str(folder / text.lstrip("/")) if inside else text

    for path in pod.mounts:
        Path(here(path)).mkdir(parents=True, exist_ok=True)
    variables = {name: here(value) for name, value in environment(pod.container, SECRET).items()}
    Path(variables["ONESEEK_CONFIG"]).write_text(settings_text(manifests, pod.spec), encoding="utf-8")
    program, *arguments = pod.container["command"]
    place = folder / pod.container["workingDir"].lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    assert program == "oneseek"
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **variables},
            stdout=output,
            stderr=output,
            cwd=place,
            preexec_fn=heed_interrupts,
        )
    http = httpx.Client(base_url=f"http://127.0.0.1:{pod.ports['http']}", timeout=60)
    return Running(manifests, pod, process, http, log)


@pytest.fixture(scope="module")
def running(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    manifests = tools.render(VALUES | {"port": free_port()}).manifests
    running = start(manifests, tmp_path_factory.mktemp("pod"))
    try:
        running.wait_for("startupProbe")
        with running.http:
            yield running
    finally:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize("name", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_need_no_key_and_are_answered(running: Running, name: str) -> None:
    assert running.probe(name).status_code == 200


def test_the_keys_of_the_secret_hold(running: Running) -> None:
    status = {
        key: running.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code
        for key in ("tenant-a", "tenant-b", "operator", "for-prometheus", "nobody")
    }
    assert {key for key, code in status.items() if code == 200} == {"tenant-a", "tenant-b", "operator"}


def test_the_monitor_scrapes_with_its_key(running: Running) -> None:
    (endpoint,) = only(running.manifests, "ServiceMonitor")["spec"]["endpoints"]
    key = SECRET[endpoint["authorization"]["credentials"]["key"]]
    headers = {"Authorization": f"{endpoint['authorization']['type']} {key}"}
    assert running.http.get(endpoint["path"], headers=headers).status_code == 200
    assert running.http.get(endpoint["path"]).status_code == 401


def test_what_scales_pods_is_a_metric_of_the_server(running: Running, made: Made) -> None:
    text = running.http.get("/metrics", headers={"Authorization": "Bearer for-prometheus"}).text
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    sources = ("chart:hpa", "chart:gateway", "overlay:everything")
    names = {
        name
        for source in sources
        for scaler in (
            *of_kind(made.manifests(source), "HorizontalPodAutoscaler"),
            *of_kind(made.manifests(source), "ScaledObject"),
        )
        for name in METRIC.findall(str(scaler["spec"].get("metrics", scaler["spec"].get("triggers"))))
    }
    assert names == {"oneseek_requests_waiting"}
    assert names <= exported


def test_what_is_written_is_where_the_pod_may_write(running: Running) -> None:
    home = running.log.parent / "var" / "lib" / "oneseek"
    assert (home / "format").exists()
    assert list((home / "graphs").iterdir())
    folder = running.log.parent
    readable = {folder / "etc" / "oneseek" / "oneseek.yaml", running.log}
    allowed = [folder / path.lstrip("/") for path in running.pod.writable]
    written = [path for path in folder.rglob("*") if path.is_file() and path not in readable]
    assert all(any(path.is_relative_to(place) for place in allowed) for path in written)


def test_kedas_query_finds_the_pods(running: Running, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Asked of a real Prometheus, which has the labels that its operator gives."""
    program = pytestconfig.getoption("prometheus")
    if not program:
        pytest.skip("no --prometheus: the query of the ScaledObject is not proven")
    service = only(running.manifests, "Service")["metadata"]["name"]
    (trigger,) = only(running.manifests, "ScaledObject")["spec"]["triggers"]
    port, target = free_port(), f"127.0.0.1:{running.pod.ports['http']}"
    labels = f"{{namespace: {NAMESPACE}, service: {service}}}"
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        "scrape_configs:\n"
        f"  - job_name: oneseek\n    authorization: {{credentials: {SECRET['metrics_keys']}}}\n"
        f'    static_configs: [{{targets: ["{target}"], labels: {labels}}}]\n'
    )
    command = [
        str(program),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert until_asked(port, trigger["metadata"]["query"]) == 0, (tmp_path / "log").read_text()
    finally:
        process.terminate()
        process.wait(20)


def until_asked(port: int, query: str) -> float | None:
    """What Prometheus answers, once it has scraped."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{port}/api/v1/query"
            answer = httpx.get(url, params={"query": query})
            found = answer.json()["data"]["result"] if answer.status_code == 200 else []
            if found:
                return float(found[0]["value"][1])
        time.sleep(0.1)
    return None


def test_a_pod_ends_within_its_grace_and_is_taken_out_before(tools: Tools, tmp_path: Path) -> None:
    """SIGTERM is what follows the preStop hook."""
    values = VALUES | {"port": free_port(), "keys": {}, "preStopSeconds": 0}
    running = start(tools.render(values).manifests, tmp_path)
    lines: list[str] = []

    def read() -> None:
        with running.http.stream("POST", "/v1/completions", json=LONG) as reply:
            lines.extend(line for line in reply.iter_lines() if line)

    reader = threading.Thread(target=read)
    try:
        running.wait_for("readinessProbe")
        reader.start()
        until(lambda: running.metric("oneseek_requests_running") > 0)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.probe("readinessProbe").status_code == 503)
        assert running.probe("livenessProbe").status_code == 200
        assert running.process.wait(60) == 0
        assert time.monotonic() - began < running.pod.spec["terminationGracePeriodSeconds"]
        reader.join(10)
        assert lines[-1] == "data: [DONE]", "a stream is told its end"
    finally:
        running.process.kill()
        running.process.wait()
        reader.join(10)
        running.http.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
