"""What grows with a request is not done on the event loop, and its bounds come before the work."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from routing.route import Router
from server.api.endpoints import chat, completions, prompts
from server.api.parsing import formats, sampling
from server.api.rendering import completion_chunks
from server.serving import generation
from server.text.tokenizer import Tokenizer
from tests.server.http_server import EN, Serving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SAID = [{"role": "user", "content": "Hej"}]
SMALL = json.dumps({"messages": SAID, "max_tokens": 1}).encode()
PROMPT = [5 + number % 50 for number in range(200)]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[object, str], list[str]]:
    """Note in which thread a function of a module runs."""

    def watch(place: object, name: str) -> list[str]:
        work, seen = getattr(place, name), list[str]()

        def watched(*given: Any, **named: Any) -> Any:
            seen.append(threading.current_thread().name)
            return work(*given, **named)

        monkeypatch.setattr(place, name, watched)
        return seen

    return watch


def on_the_loop(seen: list[str]) -> bool:
    """Whether any of it ran in the thread of the event loop, which `served` starts."""
    assert seen
    return any(name.endswith("(run)") for name in seen)


@pytest.mark.parametrize("name", ["to_generation", "parse_messages", "read_tools"])
def test_long_conversations_are_read_aside(
    serving: Serving, threads: Callable[[object, str], list[str]], name: str
) -> None:
    seen = threads(chat, name)
    assert serving.http.post(CHAT, content=SMALL, headers={"Content-Type": "application/json"}).is_success
    assert on_the_loop(seen)
    seen.clear()
    parts = [{"type": "text", "text": ""}] * 500
    long = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "Hej"}]}]}
    assert serving.http.post(CHAT, json=long | {"max_tokens": 1}).is_success
    assert not on_the_loop(seen)


def test_a_long_text_is_read_for_its_language_aside(
    serving: Serving, threads: Callable[[object, str], list[str]]
) -> None:
    seen = threads(Router, "decide")
    serving.http.post("/inference/oneseek", json={"text": "Vem är du? " * 500, "max_tokens": 1})
    assert not on_the_loop(seen)


@pytest.mark.parametrize(("path", "work"), [(COMPLETIONS, "encode"), (CHAT, "chat")])
def test_long_texts_are_tokenised_aside(
    serving: Serving, threads: Callable[[object, str], list[str]], path: str, work: str
) -> None:
    seen, text = threads(Tokenizer, work), "Vem är du? " * 200
    given = {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
    serving.http.post(path, json=given | {"max_tokens": 1})
    assert not on_the_loop(seen)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": [PROMPT] * 4, "max_tokens": 1, "prompt_logprobs": 20}),
        (COMPLETIONS, {"prompt": [PROMPT] * 4, "max_tokens": 1, "logprobs": 20, "echo": True}),
        (
            CHAT,
            {"messages": SAID, "max_tokens": 30, "ignore_eos": True, "logprobs": True, "top_logprobs": 20},
        ),
    ],
)
def test_many_log_probabilities_are_written_aside_and_in_pieces(
    serving: Serving, threads: Callable[[object, str], list[str]], path: str, body: dict[str, Any]
) -> None:
    seen = threads(chat if path == CHAT else completions, "encode_pieces")
    reply = serving.http.post(path, json=body | {"model": EN})
    assert (reply.status_code, reply.headers.get("transfer-encoding")) == (200, "chunked")
    assert reply.json()["choices"]
    assert not on_the_loop(seen)


def test_an_echoed_prompt_is_streamed_in_several_events(
    serving: Serving, threads: Callable[[object, str], list[str]]
) -> None:
    seen = threads(completion_chunks, "completion_logprobs")
    body = {"prompt": PROMPT, "max_tokens": 2, "logprobs": 20, "echo": True, "stream": True, "model": EN}
    whole = serving.http.post(COMPLETIONS, json=body | {"stream": False, "temperature": 0}).json()
    seen.clear()
    text = serving.http.post(COMPLETIONS, json=body | {"temperature": 0}).text
    assert not all(name.endswith("(run)") for name in seen)
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    choices = [json.loads(line)["choices"][0] for line in lines]
    tokens = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["tokens"]]
    assert tokens == whole["choices"][0]["logprobs"]["tokens"]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]


def test_log_probabilities_of_prompts_are_bounded(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SCORES", 4 * 200 * 21 - 1)
    body = {"prompt": [PROMPT] * 4, "max_tokens": 1, "prompt_logprobs": 20, "model": EN}
    reply = serving.http.post(COMPLETIONS, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt_logprobs")
    assert serving.http.post(COMPLETIONS, json=body | {"prompt": [PROMPT] * 3}).is_success


def test_token_ids_are_read_aside(serving: Serving, threads: Callable[[object, str], list[str]]) -> None:
    seen = threads(prompts, "given_prompts")
    assert serving.http.post(COMPLETIONS, json={"prompt": [PROMPT] * 20, "max_tokens": 1}).is_success
    assert not on_the_loop(seen)
    assert generation.INLINE_CHARACTERS <= 1024


@pytest.mark.parametrize(
    "field", ["guided_json", "guided_regex", "guided_choice", "guided_grammar", "response_format"]
)
def test_a_schema_is_measured_before_it_is_walked(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    walked: list[object] = []
    monkeypatch.setattr(formats, "check_schema", walked.append)
    large: dict[str, Any] = {"anyOf": [{"title": "x" * 60}] * 3000}
    value: Any = {
        "guided_json": large,
        "guided_regex": "a" * 200_000,
        "guided_choice": ["a" * 300] * 600,
        "guided_grammar": "a" * 200_000,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": large}},
    }[field]
    reply = serving.http.post(CHAT, json={"messages": SAID, "max_tokens": 1, field: value})
    assert reply.status_code == 400
    assert "128 KiB" in reply.json()["error"]["message"]
    assert walked == []
    assert serving.http.post(CHAT, json={"messages": SAID, "max_tokens": 1, "guided_json": {}}).is_success
    assert walked
