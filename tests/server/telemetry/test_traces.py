"""A request is one span with its phases beneath it, in the trace of whoever asked."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import Histogram, HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.metrics import http_metrics
from opentelemetry.trace import SpanKind, StatusCode

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from server.telemetry.otel import names
from server.telemetry.otel.setup import make_tracing
from tests.server.http_server import BASE, SV, Serving, eventually, make_app, served

CHAT, COMPLETIONS, MULTI = "/v1/chat/completions", "/v1/completions", "/api/oqt/multi-model-query"
SECRET = "Min hemlighet är mycket känslig"
QUESTION = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, "ignore_eos": True}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
PHASES = ("oneseek.parse", "oneseek.route", "oneseek.queue", "oneseek.prefill", "oneseek.decode")


@dataclass
class TracedServer:
    """A server whose spans and metrics stay in memory."""

    serving: Serving
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def ask(
        self, path: str = CHAT, headers: dict[str, str] | None = None, **fields: Any
    ) -> list[ReadableSpan]:
        """The spans of a request, its own the last."""
        self.exporter.clear()
        body = QUESTION if path == CHAT else {}
        self.serving.http.post(path, json=body | fields, headers=headers or {})
        return self.spans()

    def spans(self) -> list[ReadableSpan]:
        assert eventually(
            lambda: any(span.kind is SpanKind.SERVER for span in self.exporter.get_finished_spans())
        )
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        metrics = [
            metric
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [
            point
            for metric in metrics
            if isinstance(metric.data, Histogram)
            for point in metric.data.data_points
        ]


def traced(
    base: Path, voices: dict[str, Adapter], graphs: Path, environ: dict[str, str], **more: Any
) -> Iterator[TracedServer]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    settings = Settings(port=0, max_num_seqs=4, log_level="critical", drain_seconds=1, **more)
    tracing = make_tracing(environ, [SimpleSpanProcessor(exporter)], [reader])
    made = make_app(base, voices, graphs, settings, observers=[tracing])
    with served(made, settings, voices) as serving:
        yield TracedServer(serving, exporter, reader)


@pytest.fixture(scope="module")
def server(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[TracedServer]:
    """One that opts in to the names for generative AI."""
    environ = {names.OPT_IN_VARIABLE: f"http,{names.OPT_IN}"}
    yield from traced(tiny_base, voices, graphs, environ)


@pytest.fixture(scope="module")
def plain(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[TracedServer]:
    yield from traced(tiny_base, voices, graphs, {})


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def ids(spans: Sequence[ReadableSpan]) -> set[str]:
    return {format(span.context.trace_id, "032x") for span in spans if span.context is not None}


def test_a_request_is_one_span_with_its_phases(server: TracedServer) -> None:
    *phases, own = server.ask(temperature=0.5, seed=7)
    assert own.kind is SpanKind.SERVER
    assert own.name == f"chat {SV}"
    assert tuple(span.name for span in phases) == PHASES
    assert own.context is not None
    for span in phases:
        assert span.parent is not None
        assert span.parent.span_id == own.context.span_id
    times = [(span.start_time or 0, span.end_time or 0) for span in phases]
    moments = [own.start_time or 0, *itertools.chain(*times), own.end_time or 0]
    assert moments[0] > 0
    assert moments == sorted(moments)
    found = attributes(own)
    sv = server.serving.adapters["sv"]
    assert found[names.METHOD] == "POST"
    assert (found[names.ROUTE], found[names.STATUS]) == (CHAT, 200)
    assert (found["oneseek.adapter"], found["oneseek.adapter.digest"]) == (f"{SV}@v1.1", sv.digest)
    assert (found["oneseek.base"], found["oneseek.language"]) == (BASE, "sv")
    assert found[names.OPERATION] == "chat"
    assert (found[names.PROVIDER], found[names.RESPONSE_MODEL]) == ("oneseek", f"{SV}@v1.1")
    assert (found[names.TEMPERATURE], found[names.SEED], found[names.MAX_TOKENS]) == (0.5, 7, 4)
    assert (found[names.OUTPUT_TOKENS], found[names.FINISH_REASONS]) == (4, ("length",))
    assert isinstance(found[names.INPUT_TOKENS], int)
    assert found[names.STREAM] is False
    assert attributes(phases[-1])["oneseek.tokens"] == 4


def test_nothing_of_what_is_said_is_in_a_span(server: TracedServer) -> None:
    for stream in (False, True):
        for span in server.ask(COMPLETIONS, prompt=SECRET, max_tokens=3, stream=stream, stop=["hemligt ord"]):
            shown = span.to_json()
            assert not any(word in shown for word in (*SECRET.split(), "hemligt ord") if len(word) > 3)


def test_the_trace_of_whoever_asks_goes_on(server: TracedServer) -> None:
    spans = server.ask(headers=CONTEXT)
    assert ids(spans) == {TRACE}
    assert spans[-1].parent is not None
    assert format(spans[-1].parent.span_id, "016x") == PARENT
    assert spans[-1].context is not None
    assert spans[-1].context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("bad", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 4000, "00-\xe9"])
def test_a_trace_that_is_none_begins_anew(
    server: TracedServer, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.exporter.clear()
    headers = [(b"traceparent", bad.encode("latin-1"))]
    server.serving.http.post(CHAT, json=QUESTION, headers=headers)
    spans = server.spans()
    assert spans[-1].parent is None
    assert ids(spans) != {TRACE}
    assert not caplog.records


def test_a_trace_that_is_not_sampled_makes_no_spans(server: TracedServer) -> None:
    server.exporter.clear()
    answer = server.serving.http.post(CHAT, json=QUESTION, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert answer.status_code == 200
    assert not eventually(lambda: bool(server.exporter.get_finished_spans()), 0.3)


def test_each_choice_has_its_phases(server: TracedServer) -> None:
    spans = server.ask(n=3)
    assert [attributes(span)["oneseek.answer"] for span in spans if span.name == PHASES[4]] == [0, 1, 2]
    assert attributes(spans[-1])[names.CHOICES] == 3


def test_a_refusal_is_a_span_without_an_answer(server: TracedServer) -> None:
    *phases, own = server.ask(model="no-such-model")
    assert [span.name for span in phases] == [PHASES[0]]
    assert attributes(own)[names.STATUS] == 404
    assert own.name == "chat"
    assert own.status.status_code is StatusCode.UNSET  # the client's mistake, not the server's


def test_a_client_that_leaves_is_an_error_with_its_reason(server: TracedServer) -> None:
    host, port = server.serving.url.removeprefix("http://").split(":")
    body = json.dumps(QUESTION | {"max_tokens": 200, "stream": True}).encode()
    server.exporter.clear()
    with socket.create_connection((host, int(port))) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        client.recv(100)
    *phases, own = server.spans()
    assert attributes(own)[names.ERROR_TYPE] == "disconnect"
    assert own.status.status_code is StatusCode.ERROR
    assert phases[-1].name == PHASES[4]


def test_probes_make_no_spans(server: TracedServer) -> None:
    server.exporter.clear()
    for path in ("/live", "/ready", "/health"):
        server.serving.http.get(path)
    server.serving.counts()
    assert not eventually(lambda: bool(server.exporter.get_finished_spans()), 0.3)


def test_without_the_opt_in_no_name_is_of_generative_ai(plain: TracedServer) -> None:
    *phases, own = plain.ask(headers=CONTEXT)
    assert own.name == f"POST {CHAT}"
    assert tuple(span.name for span in phases) == PHASES
    assert not [name for name in attributes(own) if name.startswith("gen_ai.")]
    assert attributes(own)["oneseek.adapter"] == f"{SV}@v1.1"
    assert not plain.points(names.FIRST_TOKEN)
    (point,) = plain.points(names.HTTP_DURATION)
    assert dict(point.attributes or {})[names.ROUTE] == CHAT
    assert point.explicit_bounds == names.HTTP_BUCKETS


def test_metrics_have_the_labels_of_the_registry(server: TracedServer) -> None:
    server.ask(model="sv")
    server.ask(model="invented-by-a-client")
    for name, buckets in (
        (names.REQUEST_DURATION, names.REQUEST_BUCKETS),
        (names.FIRST_TOKEN, names.FIRST_BUCKETS),
        (names.PER_TOKEN, names.PER_TOKEN_BUCKETS),
    ):
        points = server.points(name)
        models = {str(dict(point.attributes or {})[names.REQUEST_MODEL]) for point in points}
        assert SV in models
        assert models <= {SV, "unknown", "none", "oneseek-7b-zero", "base"}
        assert all(point.explicit_bounds == buckets for point in points)


def test_voices_share_a_trace_and_it_goes_on_to_services(
    server: TracedServer, tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    table = {"url": f"{server.serving.url}/v1", "model": SV, "timeout": 20}
    external = {"external_models": {"far": json.dumps(table)}}
    for near in traced(tiny_base, voices, graphs, {}, **external):
        server.exporter.clear()
        spans = near.ask(MULTI, CONTEXT, question=SECRET, models=["sv", "base", "far"], max_tokens=3)
        assert ids(spans) == {TRACE}
        (call,) = [span for span in spans if span.kind is SpanKind.CLIENT]
        assert attributes(call)["oneseek.service"] == "far"
        answered = server.spans()
        assert ids(answered) == {TRACE}
        assert answered[-1].parent is not None
        assert call.context is not None
        assert answered[-1].parent.span_id == call.context.span_id
        assert answered[-1].context is not None
        assert answered[-1].context.trace_state.get("vendor") == "1"
        adapters = [attributes(span)["oneseek.adapter"] for span in spans if span.name == PHASES[4]]
        assert sorted(map(str, adapters)) == ["base", SV]


def test_names_are_those_of_the_conventions() -> None:
    known = {
        value
        for module in (
            gen_ai_attributes, gen_ai_metrics, http_attributes, http_metrics, url_attributes,
            server_attributes, error_attributes,
        )
        for value in vars(module).values()
        if isinstance(value, str)
    }  # fmt: skip
    ours = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and "." in value
    }
    assert len(ours) > 20
    assert ours <= known
    operations = {member.value for member in vars(gen_ai_attributes)["GenAiOperationNameValues"]}
    assert set(names.OPERATIONS.values()) <= operations
