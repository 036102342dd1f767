"""What a server says of itself, and what is made of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.target.http import Endpoint, TargetError
from bench.target.metrics import counts, gauges
from bench.target.probe import UNKNOWN_TOKENS_PER_WORD, probe

VLLM = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="base"} 3.0
vllm:num_requests_waiting{model_name="base"} 2.0
# TYPE vllm:request_success counter
vllm:request_success_total{finished_reason="stop",model_name="base"} 5.0
vllm:request_success_total{finished_reason="length",model_name="base"} 7.0
vllm:request_success_total{finished_reason="abort",model_name="base"} 1.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{model_name="base"} 100.0
vllm:generation_tokens_total{model_name="base"} 50.0
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{model_name="base",le="+Inf"} 12.0
vllm:request_queue_time_seconds_sum{model_name="base"} 3.0
vllm:request_queue_time_seconds_count{model_name="base"} 12.0
"""
ONESEEK = """oneseek_build_info{version="0.1.0"} 1.0
oneseek_requests_running{base="b",adapter="sv"} 1.0
oneseek_requests_total{endpoint="/v1/chat/completions",adapter="sv",status="200"} 4.0
oneseek_requests_total{endpoint="/v1/chat/completions",adapter="sv",status="499"} 2.0
oneseek_requests_total{endpoint="/v1/models",adapter="none",version="",language="none",status="200"} 9.0
oneseek_tokens_total{adapter="sv",version="v1",kind="prompt"} 40.0
oneseek_tokens_total{adapter="sv",version="v1",kind="cached"} 30.0
oneseek_tokens_total{adapter="sv",version="v1",kind="completion"} 20.0
# TYPE oneseek_queue_seconds histogram
oneseek_queue_seconds_bucket{adapter="sv",le="+Inf"} 4.0
oneseek_queue_seconds_sum{adapter="sv"} 0.5
oneseek_queue_seconds_count{adapter="sv"} 4.0
"""
Serve = Callable[[Mapping[str, str]], Endpoint]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers paths with fixed bodies, else 404."""
    servers: list[ThreadingHTTPServer] = []

    def start(bodies: Mapping[str, str]) -> Endpoint:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's own name
                body = bodies.get(self.path)
                self.send_response(404 if body is None else 200)
                self.end_headers()
                self.wfile.write((body or "").encode())

            def do_POST(self) -> None:  # http.server's own name
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own name
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return Endpoint(f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def models(*entries: tuple[str, str | None]) -> str:
    found = [{"id": name, "parent": parent, "max_model_len": 512} for name, parent in entries]
    return json.dumps({"data": found})


def test_another_server_is_known_by_its_names(serve: Serve) -> None:
    found = probe(serve({"/v1/models": models(("m", None), ("talk-sv", "m"), ("talk-en", "m"))}))
    assert (found.kind, found.base, found.adapters, found.context) == (
        "other",
        "m",
        ("talk-sv", "talk-en"),
        512,
    )
    assert found.by_language == {"en": "talk-en", "sv": "talk-sv"}
    assert found.tokens_per_word == {"en": UNKNOWN_TOKENS_PER_WORD, "sv": UNKNOWN_TOKENS_PER_WORD}


def test_a_name_that_is_given_wins(serve: Serve) -> None:
    found = probe(serve({"/v1/models": models(("m", None), ("a", "m"))}), {"sv": "a"})
    assert found.adapter_for("sv") == "a"
    with pytest.raises(TargetError, match="--adapter en=NAME"):
        found.adapter_for("en")


def test_a_tokenizer_is_asked_for(serve: Serve) -> None:
    bodies = {"/v1/models": models(("m", None)), "/tokenize": '{"count": 226}', "/metrics": VLLM}
    found = probe(serve(bodies))
    assert found.kind == "vllm"
    assert 1 < found.tokens_per_word["sv"] < 3


@pytest.mark.parametrize("body", ["{}", '{"data": []}', "<html>"])
def test_what_is_no_model_server_is_refused(serve: Serve, body: str) -> None:
    with pytest.raises(TargetError, match="/v1/models"):
        probe(serve({"/v1/models": body}))


def test_nobody_there() -> None:
    with pytest.raises(TargetError, match="--url"):
        probe(Endpoint("http://127.0.0.1:9"))


def test_vllms_counters(serve: Serve) -> None:
    endpoint = serve({"/metrics": VLLM})
    found = counts(endpoint, "vllm")
    assert found is not None
    assert (found.completed, found.given_up, found.prompt_tokens, found.completion_tokens) == (12, 1, 100, 50)
    assert gauges(endpoint, "vllm") == (3, 2)
    assert found.queue_mean == 0.25
    assert counts(endpoint, "other") is None


def test_oneseeks_counters_are_of_answers_alone(serve: Serve) -> None:
    found = counts(serve({"/metrics": ONESEEK}), "oneseek")
    assert found is not None
    assert (found.completed, found.given_up, found.running) == (4, 2, 1)
    assert (found.prompt_tokens, found.completion_tokens, found.by_adapter) == (40, 20, {"sv": 20})
    assert found.since(found).completed == 0
    assert (found.queue_mean, found.since(found).queue_mean) == (0.125, None)


@contextmanager
def answering(answer: bytes) -> Generator[Endpoint]:
    """Answer one request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def respond() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=respond)
        thread.start()
        yield Endpoint(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", "HTTP"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data":"x"}', "no models"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data":[7]}', "no models"),
        (b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n", "500"),
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "401.*--key"),
    ],
)
def test_what_is_no_model_server_is_named(answer: bytes, named: str) -> None:
    with answering(answer) as endpoint, pytest.raises(TargetError, match=named):
        probe(endpoint)
