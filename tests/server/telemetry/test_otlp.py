"""The command line's server exports over OTLP, to a collector that decodes it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from server.config.extras import ExtraMissingError
from server.config.settings import Settings
from server.config.values import SettingsError
from server.telemetry.otel import names
from server.telemetry.otel.setup import check_variables, open_tracing
from server.telemetry.otel.tracing import CLOSE_SECONDS
from server.telemetry.start import open_observers
from tests.server.server_process import ServerProcess
from tests.server.telemetry.collector import Collector, collecting, values

ROOT = Path(__file__).resolve().parents[3]
CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "hej"}], "max_tokens": 4, "ignore_eos": True}
TRACE = "0af7651916cd43dd8448eb211c80319c"
Serve = Callable[..., ServerProcess]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def serve(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    started: list[ServerProcess] = []

    def start(environ: Mapping[str, str], *arguments: str) -> ServerProcess:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        started.append(ServerProcess(tiny_base, tmp_path, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.end()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals that a process can be sent")
def test_traces_and_metrics_reach_a_collector(serve: Serve, collector: Collector) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-token=abc",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        names.OPT_IN_VARIABLE: names.OPT_IN,
    }
    server = serve(environ, "--otel")
    parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    answer = httpx.post(server.url() + CHAT, json=QUESTION, headers=parent, timeout=60)
    assert answer.status_code == 200
    line = server.said(r'(\{"event":"request".*\})')
    assert f'"trace":"{TRACE}"' in line
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    spans = {span.name: span for span in collector.spans}
    assert {"oneseek.parse", "oneseek.route", "oneseek.queue", "oneseek.prefill", "oneseek.decode"} < set(
        spans
    )
    (own,) = [span for name, span in spans.items() if name.startswith("chat ")]
    assert own.trace_id.hex() == TRACE
    assert all(span.parent_span_id == own.span_id for span in collector.spans if span is not own)
    found = values(list(own.attributes))
    assert (found[names.OPERATION], found[names.FINISH_REASONS]) == ("chat", ["length"])
    resource = values(list(collector.resources[0].attributes))
    assert resource["service.name"] == "oneseek"
    assert resource["deployment.environment.name"] == "test"
    metrics = collector.last_metrics
    assert metrics[names.FIRST_TOKEN].histogram.data_points[0].count == 1
    assert metrics[names.HTTP_DURATION].unit == "s"
    assert all(headers["x-token"] == "abc" for headers in collector.headers)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals that a process can be sent")
def test_a_collector_that_is_not_there_holds_nothing_up(serve: Serve) -> None:
    server = serve({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "--otel")
    assert httpx.post(server.url() + CHAT, json=QUESTION, timeout=60).status_code == 200
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert time.monotonic() - began < CLOSE_SECONDS + 10
    assert "Traceback" not in server.log.read_text()


OFF = """
import sys
import server.asgi.compose
from server.config.settings import Settings
from server.telemetry.start import open_observers
open_observers(Settings(), {})
open_observers(Settings(otel=True), {"OTEL_SDK_DISABLED": "true"})
print([name for name in sys.modules if name.startswith(("opentelemetry", "server.telemetry.otel"))])
"""


def test_nothing_of_it_is_imported_while_it_is_off() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OFF], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_no_observer_is_no_work() -> None:
    assert open_observers(Settings(log_requests=False), {}) == ()


def test_a_start_without_the_extra_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'oneseek\[otel\]'"):
        open_tracing({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_variables({name: value})
    assert refused.value.name == name
    assert repr(value) in refused.value.problem


def test_what_is_supported_passes() -> None:
    check_variables({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert not names.opts_in({names.OPT_IN_VARIABLE: "http"})
    assert names.opts_in({names.OPT_IN_VARIABLE: f"http/dup, {names.OPT_IN}"})
