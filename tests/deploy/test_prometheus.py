"""A real Prometheus 2 scrapes the server, and finds what dashboards query."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from adapters.bases import find_base
from tests.deploy.watching.watched import METRICS_KEY, value
from tests.deploy.watching.watched import prometheus as started
from tests.server.metrics.test_metrics import BOARD
from tests.server.server_process import ServerProcess

KEY = "a-tenants-key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("deploy")
    running = ServerProcess(find_base(folder).path, folder, "--api-keys", KEY, "--metrics-keys", METRICS_KEY)
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
    folder = tmp_path_factory.mktemp("prometheus") / "shipped"
    with started(str(pytestconfig.getoption("prometheus")), folder, server, METRICS_KEY) as client:
        yield client


def test_it_scrapes_openmetrics(prometheus: httpx.Client) -> None:
    (target,) = prometheus.get("/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_it_is_the_version_that_knows_no_other_names(prometheus: httpx.Client) -> None:
    assert prometheus.get("/status/buildinfo").json()["data"]["version"].startswith("2.")


@pytest.mark.parametrize("name", BOARD)
def test_vllms_board_finds_its_metrics(prometheus: httpx.Client, name: str) -> None:
    for suffix in BOARD[name]:
        assert value(prometheus, f"count({name}{suffix})"), f"{name}{suffix}"


def test_what_was_asked_is_counted(prometheus: httpx.Client) -> None:
    assert value(prometheus, "sum(vllm:generation_tokens_total)") == 5
    assert value(prometheus, 'vllm:request_success_total{finished_reason="length"}') == 1
    assert value(prometheus, "histogram_quantile(0.5, sum by(le) (vllm:request_generation_tokens_bucket))")
    assert value(prometheus, "process_resident_memory_bytes")
    assert value(prometheus, "sum(oneseek_requests_total)") == 1
