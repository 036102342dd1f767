"""A real Prometheus 2 scrapes the server, and finds what dashboards query."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.metrics.test_metrics import BOARD
from tests.server.server_process import ServerProcess

KEY, METRICS_KEY = "a-tenants-key", "for-prometheus"
CONFIGURATION = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
  - job_name: oneseek
    authorization: {{credentials_file: {key}}}
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture(scope="module")
def server(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("deploy")
    running = ServerProcess(tiny_base, folder, "--api-keys", KEY, "--metrics-keys", METRICS_KEY)
    try:
        url = running.url()
        body = {"model": "base", "prompt": "hi", "max_tokens": 5, "ignore_eos": True}
        headers = {"Authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=60).status_code == 200
        yield url
    finally:
        running.end()


@pytest.fixture(scope="module")
def prometheus(
    server: str, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "key").write_text(METRICS_KEY)
    target = server.removeprefix("http://").rstrip("/")
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(key=folder / "key", target=target))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        str(pytestconfig.getoption("prometheus")),
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
        try:
            if _value(client, 'up{job="oneseek"}') == 1:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def _value(client: httpx.Client, query: str) -> float | None:
    found = client.get("/query", params={"query": query}).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def test_it_scrapes_openmetrics(prometheus: httpx.Client) -> None:
    (target,) = prometheus.get("/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_it_is_the_version_that_knows_no_other_names(prometheus: httpx.Client) -> None:
    assert prometheus.get("/status/buildinfo").json()["data"]["version"].startswith("2.")


@pytest.mark.parametrize("name", BOARD)
def test_vllms_board_finds_its_metrics(prometheus: httpx.Client, name: str) -> None:
    for suffix in BOARD[name]:
        assert _value(prometheus, f"count({name}{suffix})"), f"{name}{suffix}"


def test_what_was_asked_is_counted(prometheus: httpx.Client) -> None:
    assert _value(prometheus, "sum(vllm:generation_tokens_total)") == 5
    assert _value(prometheus, 'vllm:request_success_total{finished_reason="length"}') == 1
    assert _value(prometheus, "histogram_quantile(0.5, sum by(le) (vllm:request_generation_tokens_bucket))")
    assert _value(prometheus, "process_resident_memory_bytes")
    assert _value(prometheus, "sum(oneseek_requests_total)") == 1
