"""Fields and names as clients of OpenAI, vLLM, SGLang and LoRAX write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from tests.server.http_server import BASE, EN, SV, make_app, served

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "model": EN}
REPLAYED: dict[str, Any] = {
    "role": "assistant", "content": "Hello", "refusal": None, "annotations": [], "audio": None, "name": None,
    "function_call": None, "tool_calls": None, "reasoning_content": None, "provider_specific_fields": None,
}  # fmt: skip
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=HELLO | fields)


def complete(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"prompt": "hi", "max_tokens": 2, "model": EN} | fields)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [*HELLO["messages"], REPLAYED, *HELLO["messages"]]},
        {"messages": [*HELLO["messages"], REPLAYED | {"reasoning_content": "Hm"}, *HELLO["messages"]]},
        {"messages": [*HELLO["messages"], REPLAYED | {"content": None, "refusal": "No"}, *HELLO["messages"]]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "id": None}]}]},
        {"stream": True, "stream_options": {"include_usage": None}},
        {"response_format": {"type": "text", "json_schema": None}},
        {"reasoning_effort": "low", "include_reasoning": True, "separate_reasoning": False},
        {"chat_template_kwargs": {}},
        {"max_tokens": 2.0, "n": 1.0, "top_k": 5.0, "seed": 3.0, "stop_token_ids": [7.0]},
        {"lora_path": None, "adapter_id": None},
    ],
)
def test_what_clients_send_is_taken_and_nothing_is_ignored(
    client: httpx.Client, fields: dict[str, Any]
) -> None:
    answer = chat(client, **fields)
    assert answer.status_code == 200, answer.text
    assert "x-oneseek-ignored" not in answer.headers


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"my_cache": True, "another": {"deep": [1]}}, "my_cache, another"),
        (
            {"messages": [{"role": "user", "content": "hi", "id": 1, "opts": {}}]},
            "messages.id, messages.opts",
        ),
        ({"stream": True, "stream_options": {"chunked": 1}}, "stream_options.chunked"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking"),
        ({"a\r\nSet-Cookie: b": 1, "å,": 2}, "a__Set-Cookie__b, __"),
        ({"x" * 300: 1}, "x" * 100),
        ({f"unheard{n:02}": n for n in range(40)}, ", ".join(f"unheard{n:02}" for n in range(20))),
    ],
)
def test_an_unknown_field_is_ignored_and_named(
    client: httpx.Client, fields: dict[str, Any], named: str
) -> None:
    answer = chat(client, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-oneseek-ignored"] == named


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"maxTokens": 1}, "maxTokens", "unknown_parameter"),
        ({"stream": True, "stream_options": {"include_usge": 1}}, "stream_options.include_usge", None),
        ({"messages": [{"role": "user", "contnt": "hi", "content": "hi"}]}, "messages[0].contnt", None),
        ({"max_tokens": 3.5}, "max_tokens", "invalid_value"),
        ({"prompt": "hi"}, "prompt", "unsupported_parameter"),
        ({"use_beam_search": True}, "use_beam_search", "unsupported_parameter"),
        ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs.tokenize", None),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", None),
        ({"lora_path": "/etc/passwd"}, "lora_path", "invalid_value"),
        ({"lora_path": ["../sv"]}, "lora_path[0]", "invalid_value"),
        ({"adapter_id": "https://example.com/sv"}, "adapter_id", "invalid_value"),
        ({"lora_path": 3}, "lora_path", "invalid_type"),
        ({"lora_path": [EN, SV]}, "lora_path", "unsupported_value"),
        ({"lora_path": SV}, "lora_path", "invalid_value"),
        ({"lora_path": EN, "adapter_id": SV}, "adapter_id", "invalid_value"),
        ({"adapter_source": "hub", "adapter_id": EN}, "adapter_source", "unsupported_parameter"),
        ({f"stoq{n}" if n % 2 else f"sto{n}p": n for n in range(100)}, None, None),
    ],
)
def test_what_cannot_be_meant_is_refused(
    client: httpx.Client, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = chat(client, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    assert param is None or error["param"] == param
    assert code is None or error["code"] == code


@pytest.mark.parametrize(
    ("fields", "answered"),
    [
        ({"model": f"{BASE}:{SV}"}, f"{SV}@v1.1"),
        ({"model": f"{BASE}:{SV}@v1.0"}, f"{SV}@v1.0"),
        ({"model": "oneseek", "lora_path": SV}, f"{SV}@v1.1"),
        ({"model": None, "lora_path": [SV]}, f"{SV}@v1.1"),
        ({"model": BASE, "lora_path": f"{SV}@v1.0"}, f"{SV}@v1.0"),
        ({"model": "base", "adapter_id": SV.upper()}, f"{SV}@v1.1"),
        ({"model": SV, "adapter_id": f"{SV}@v1.1"}, f"{SV}@v1.1"),
        ({"model": BASE, "lora_path": [None]}, BASE),
    ],
)
def test_an_adapter_by_any_spelling(client: httpx.Client, fields: dict[str, Any], answered: str) -> None:
    for answer in (chat(client, **fields), complete(client, **fields)):
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == answered


@pytest.mark.parametrize("field", ["lora_path", "adapter_id"])
def test_an_adapter_that_is_not_served_is_not_found(client: httpx.Client, field: str) -> None:
    answer = chat(client, model="oneseek", **{field: "org/unheard"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, field)


def test_no_number_of_fields_costs_more_than_the_bound(client: httpx.Client) -> None:
    body = json.dumps(HELLO)[:-1] + "".join(f',"unheard{n}":1' for n in range(100_000)) + "}"
    answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "field_too_large")
    many = [{"role": "user", "content": "hi", f"unheard{n}": 1} for n in range(300)]
    answer = chat(client, messages=many)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "field_too_large")


def test_usage_in_every_chunk(client: httpx.Client) -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    for ask in (chat, complete):
        found = events(ask(client, stream=True, max_tokens=6, n=2, stream_options=options, ignore_eos=True))
        counts = [event["usage"]["completion_tokens"] for event in found]
        assert counts == sorted(counts)
        assert (counts[-1], found[-1]["choices"]) == (12, [])
        assert {event["usage"]["prompt_tokens"] for event in found} == {found[-1]["usage"]["prompt_tokens"]}


def test_what_came_from_the_cache_is_in_every_chunk_with_a_token(client: httpx.Client) -> None:
    options = {"continuous_usage_stats": True, "include_usage": True}
    given: dict[str, Any] = {"max_tokens": 6, "n": 2, "ignore_eos": True, "stream_options": options}
    long = "Jag svarar på två språk, och jag är en liten modell för prov. " * 3
    for ask, prompt in (
        (chat, {"messages": [{"role": "user", "content": long}]}),
        (complete, {"prompt": [long, "Who are you? " + long]}),
    ):
        ask(client, **prompt, max_tokens=1)
        found = events(ask(client, stream=True, **given, **prompt))
        last = found[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert last > 0
        told = [event["usage"] for event in found if event["usage"]["completion_tokens"]]
        counts = [usage["prompt_tokens_details"]["cached_tokens"] for usage in told]
        assert counts == sorted(counts)
        assert counts[-1] == last
        assert found[0]["usage"]["prompt_tokens_details"] in (None, {"cached_tokens": counts[0]})


def joined(streamed: list[dict[str, Any]]) -> list[int]:
    return [token for event in streamed for token in event["choices"][0].get("token_ids", [])]


def test_token_ids(client: httpx.Client) -> None:
    given: dict[str, Any] = {"return_token_ids": True, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    whole, streamed = chat(client, **given).json(), events(chat(client, stream=True, **given))
    ids = whole["choices"][0]["token_ids"]
    assert len(ids) == whole["usage"]["completion_tokens"]
    assert len(whole["prompt_token_ids"]) == whole["usage"]["prompt_tokens"]
    assert streamed[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert joined(streamed) == ids
    whole, streamed = complete(client, **given).json(), events(complete(client, stream=True, **given))
    choice = whole["choices"][0]
    assert streamed[0]["choices"][0]["prompt_token_ids"] == choice["prompt_token_ids"]
    assert joined(streamed) == choice["token_ids"]
    assert client.post("/tokenize", json={"prompt": "hi"}).json()["tokens"] == choice["prompt_token_ids"]
    assert "token_ids" not in complete(client).json()["choices"][0]


def test_tokens_as_ids(client: httpx.Client) -> None:
    given: dict[str, Any] = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    choice = chat(client, logprobs=True, top_logprobs=2, **given).json()["choices"][0]
    names = [f"token_id:{token}" for token in choice["token_ids"]]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == names
    assert all(t["token"].startswith("token_id:") for t in choice["logprobs"]["content"][0]["top_logprobs"])
    choice = complete(client, logprobs=1, **given).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]


@pytest.mark.parametrize("temperature", [0, 2])
def test_log_probabilities_join_to_the_content(client: httpx.Client, temperature: float) -> None:
    given: dict[str, Any] = {
        "max_tokens": 24, "temperature": temperature, "seed": 5, "logprobs": True, "top_logprobs": 1,
        "stop": ["e", "ab"], "min_tokens": 8,
    }  # fmt: skip
    choice = chat(client, **given).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    streamed = [event["choices"][0] for event in events(chat(client, stream=True, **given))]
    assert [
        entry for part in streamed if part["logprobs"] for entry in part["logprobs"]["content"]
    ] == entries


def test_the_sampled_token_and_the_ranks(client: httpx.Client) -> None:
    given: dict[str, Any] = {"temperature": 2, "seed": 3, "max_tokens": 8, "return_token_ids": True}
    choice = complete(client, logprobs=1, prompt_logprobs=1, return_tokens_as_token_ids=True, **given).json()[
        "choices"
    ][0]
    for token, top in zip(choice["token_ids"], choice["logprobs"]["top_logprobs"], strict=True):
        assert f"token_id:{token}" in top
        assert len(top) <= 2
    for token, row in zip(choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True):
        own = row[str(token)]
        assert own["rank"] >= 1
        assert {1, own["rank"]} == {entry["rank"] for entry in row.values()}


def test_special_tokens(client: httpx.Client) -> None:
    def tokens(**fields: Any) -> list[int]:
        return complete(client, return_token_ids=True, **fields).json()["choices"][0]["prompt_token_ids"]

    for special in (True, False):
        asked = {"prompt": "hi", "add_special_tokens": special}
        alone = client.post("/tokenize", json=asked).json()["tokens"]
        assert tokens(add_special_tokens=special) == alone
    refused = client.post("/tokenize", json={"messages": HELLO["messages"], "add_special_tokens": True})
    assert refused.json()["error"]["param"] == "add_special_tokens"


def test_strict_fields(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> None:
    settings = Settings(port=0, log_level="warning", drain_seconds=2, strict_fields=True)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        for fields, param in (
            ({"unheard": 1}, "unheard"),
            ({"messages": [{"role": "user", "content": "hi", "opts": 1}]}, "messages[0].opts"),
            ({"stream": True, "stream_options": {"chunked": 1}}, "stream_options.chunked"),
        ):
            answer = chat(serving.http, **fields)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_top_p_0_is_the_likeliest_token(client: httpx.Client) -> None:
    for ask in (chat, complete):
        texts = [ask(client, max_tokens=6, **given).json() for given in ({"temperature": 0}, {"top_p": 0})]
        greedy, least = [text["choices"][0].get("text") or text["choices"][0]["message"] for text in texts]
        assert greedy == least
