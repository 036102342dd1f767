"""Tools on bases that write calls as Hermes' and Llama's models do, and on one that knows no tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.config.settings import Settings
from server.text.tokenizer import Tokenizer
from tests.server.http_server import Serving, make_app, served
from tests.server.tool_bases import write_tool_base

CHAT = "/v1/chat/completions"
ASK: list[dict[str, Any]] = [{"role": "user", "content": "How warm is it?"}]
PLACES = ["Umeå", 'a "b" {c}', "<tool>"]


def function(name: str, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [function("weather", place={"enum": PLACES}), function("clock", exact={"type": "boolean"})]
NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.fixture(scope="module", params=["hermes", "llama3", "plain"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tool_base(tmp_path_factory.mktemp(request.param) / "base", request.param)


@pytest.fixture(scope="module")
def running(base: Path) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=8, max_queue=64, log_level="warning", drain_seconds=2)
    with served(make_app(base, {}, base.parent / "graphs", settings), settings, {}) as serving:
        yield serving


def ask(server: Serving, **fields: Any) -> dict[str, Any]:
    defaults = {"messages": ASK, "tools": TOOLS, "max_tokens": 200, "temperature": 1.2}
    answer = server.http.post(CHAT, json=defaults | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def calls_of(choice: dict[str, Any]) -> list[tuple[str, str]]:
    calls = choice["message"].get("tool_calls") or []
    assert len({call["id"] for call in calls}) == len(calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


def check(calls: list[tuple[str, str]]) -> None:
    for name, written in calls:
        arguments = json.loads(written)
        assert set(arguments) == ({"place"} if name == "weather" else {"exact"})
        assert arguments.get("place", PLACES[0]) in PLACES


def streamed(server: Serving, **fields: Any) -> tuple[str, list[tuple[str, list[str]]], str]:
    """The text of a stream, each call with the pieces of its arguments, and why it ended."""
    defaults = {"messages": ASK, "tools": TOOLS, "max_tokens": 200, "temperature": 1.2, "stream": True}
    text, calls, end = "", list[tuple[str, list[str]]](), ""
    with server.http.stream("POST", CHAT, json=defaults | fields) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            choice = json.loads(line.removeprefix("data: "))["choices"][0]
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(calls)
                    calls.append((call["function"]["name"], []))
                else:
                    assert call["index"] == len(calls) - 1
                    calls[-1][1].append(call["function"]["arguments"])
            end = choice["finish_reason"] or end
    return text, calls, end


def check_forced(server: Serving) -> None:
    """Required and named calls keep to their schemas, whole and streamed."""
    found: list[list[tuple[str, str]]] = []
    for choice in ask(server, tool_choice="required", n=6, seed=1, max_tokens=600)["choices"]:
        if choice["finish_reason"] == "length":
            continue
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        found.append(calls_of(choice))
        check(found[-1])
    assert all(found)
    assert max(map(len, found)) > 1, "some answers hold several calls"
    one = {"tool_choice": "required", "parallel_tool_calls": False, "seed": 3}
    (choice,) = ask(server, **one)["choices"]
    ((name, arguments),) = calls_of(choice)
    text, calls, end = streamed(server, **one)
    assert (text, end) == ("", "tool_calls")
    assert [(called, "".join(parts)) for called, parts in calls] == [(name, arguments)]
    pieces: list[int] = []
    while not pieces or (pieces[-1] <= 2 and len(pieces) < 10):  # a slow client gets several tokens at once
        text, calls, end = streamed(server, tool_choice=NAMED, seed=5 + len(pieces))
        assert (text, end, [called for called, _ in calls]) == ("", "stop", ["weather"])
        pieces.append(len(calls[0][1]))
    assert pieces[-1] > 2, "arguments come as they are written"


def test_calls_that_the_request_forces(running: Serving) -> None:
    check_forced(running)


def check_refused(server: Serving) -> None:
    """A base whose template knows no tools cannot choose to call them."""
    for fields in ({}, {"tool_choice": "auto", "stream": True}):
        refused: httpx.Response = server.http.post(CHAT, json={"messages": ASK, "tools": TOOLS, **fields})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "tools")
        assert error["code"] == "unsupported_parameter"


def test_a_model_that_may_call_does(running: Serving, base: Path) -> None:
    if Tokenizer.load(base).tool_format is None:
        check_refused(running)
    else:
        check_chosen(running, Tokenizer.load(base))


def check_chosen(running: Serving, tokenizer: Tokenizer) -> None:
    """A call or a text of its form, as the model chooses."""
    form = {"type": "json_schema", "json_schema": {"name": "b", "schema": {"type": "boolean"}}}
    begin = tokenizer.added_id("<tool_call>") or tokenizer.encode_within("{")[0]
    fields: dict[str, Any] = {"response_format": form, "parallel_tool_calls": False, "seed": 2}
    (choice,) = ask(running, **fields, logit_bias={str(begin): 50})["choices"]
    (call,) = calls_of(choice)
    check([call])
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    text, calls, end = streamed(running, **fields, logit_bias={str(begin): 50})
    assert (text, end) == ("", "tool_calls")
    assert [(name, "".join(parts)) for name, parts in calls] == [call]
    (choice,) = ask(running, **fields, logit_bias={str(begin): -100})["choices"]
    assert json.loads(choice["message"]["content"]) in (True, False)
    assert choice["finish_reason"] == "stop"


def check_round_trip(server: Serving) -> None:
    """The calls of an answer and their results go back to the base."""
    said = ask(server, tool_choice="required", seed=7, max_tokens=600)["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": '{"degrees": 3}'}
        for call in said["tool_calls"]
    ]
    messages = [*ASK, said, *results]
    short = ask(server, messages=messages, tool_choice="none", max_tokens=4)
    assert "tool_calls" not in short["choices"][0]["message"]
    again = ask(server, messages=messages, tool_choice=NAMED)
    check(calls_of(again["choices"][0]))
    assert again["usage"]["prompt_tokens"] > short["usage"]["prompt_tokens"], "the tools are shown again"


def test_a_conversation_goes_on_with_the_results(running: Serving) -> None:
    check_round_trip(running)
