"""The endpoints over real HTTP, without a client library's help."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.server.http_server import BASE, BASE_DIGEST, CONTEXT, EN, SV, Serving

CHAT = "/v1/chat/completions"
LEGACY = "/inference/oneseek"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 8,
    "temperature": 0,
}
FRAGA: dict[str, Any] = ASK | {"messages": [{"role": "user", "content": "Vem är du?"}]}


def error(reply: httpx.Response) -> dict[str, Any]:
    body = reply.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "x-request-id" in reply.headers
    return body["error"]


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = reply.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.mark.parametrize(
    ("header", "model", "ask", "adapter", "language", "reason"),
    [
        (None, None, ASK, f"{EN}@v1.1", "en", "language"),
        (None, None, FRAGA, f"{SV}@v1.1", "sv", "language"),
        (None, "oneseek", FRAGA, f"{SV}@v1.1", "sv", "language"),
        (None, EN, FRAGA, f"{EN}@v1.1", "sv", "model"),
        (None, f"{SV}@v1.0", ASK, f"{SV}@v1.0", "en", "model"),
        (None, BASE, ASK, "base", "en", "model"),
        ("base", EN, FRAGA, "base", "sv", "header"),
        ("sv", EN, ASK, f"{SV}@v1.1", "en", "header"),
        ("auto", EN, FRAGA, f"{SV}@v1.1", "sv", "language"),
        ("sv=0.7,en=0.3", None, ASK, f"{SV}@v1.1=0.7,{EN}@v1.1=0.3", "en", "header"),
    ],
)
def test_every_answer_has_its_receipt(
    client: httpx.Client,
    serving: Serving,
    header: str | None,
    model: str | None,
    ask: dict[str, Any],
    adapter: str,
    language: str,
    reason: str,
) -> None:
    if "=" in (header or "") and not serving.engine.info.blends:
        pytest.skip("this engine refuses blends, which the contract checks")
    headers = {"X-OneSeek-Adapter": header} if header else {}
    body = ask | ({"model": model} if model else {})
    whole = client.post(CHAT, json=body, headers=headers)
    streamed = client.post(CHAT, json=body | {"stream": True}, headers=headers)
    digests = {a.full_name: a.digest for a in serving.adapters.values()}
    names = [part.split("=")[0] for part in adapter.split(",")]
    for reply in (whole, streamed):
        assert reply.status_code == 200
        assert reply.headers["x-oneseek-adapter"] == adapter
        digest = ",".join(digests[name] for name in names if name in digests) or "none"
        assert reply.headers["x-oneseek-adapter-digest"] == digest
        assert reply.headers["x-oneseek-language"] == language
        assert re.fullmatch(rf"{reason};confidence=[01]\.\d\d", reply.headers["x-oneseek-route"])
    said = BASE if adapter == "base" else adapter
    first = events(streamed)[0]
    assert whole.json()["model"] == first["model"] == said
    assert whole.json()["system_fingerprint"] == first["system_fingerprint"]
    assert whole.json()["system_fingerprint"].startswith("fp_" + BASE_DIGEST.removeprefix("sha256:")[:12])


def test_fingerprints_tell_voices_apart(client: httpx.Client, serving: Serving) -> None:
    voices = ["base", "sv", f"{SV}@v1.0", "en"]
    if serving.engine.info.blends:
        voices += ["sv=0.5,en=0.5", "sv=0.6,en=0.4", "sv=0.5"]
    prints = [
        client.post(CHAT, json=ASK, headers={"X-OneSeek-Adapter": voice}).json()["system_fingerprint"]
        for voice in voices
    ]
    assert len(set(prints)) == len(voices)


def test_joined_deltas_are_the_whole_answer(client: httpx.Client) -> None:
    for seed in range(5):
        body = ASK | {"temperature": 1, "seed": seed, "max_tokens": 40, "n": 2}
        whole = [choice["message"]["content"] for choice in client.post(CHAT, json=body).json()["choices"]]
        reply = client.post(CHAT, json=body | {"stream": True})
        joined = ["", ""]
        ends = [0, 0]
        for chunk in events(reply):
            for choice in chunk["choices"]:
                joined[choice["index"]] += choice["delta"].get("content", "")
                ends[choice["index"]] += choice["finish_reason"] is not None
        assert joined == whole
        assert whole[0] != whole[1], "a seed gives each choice a text of its own"
        assert ends == [1, 1]


def test_a_stream_is_shaped_as_openais(client: httpx.Client) -> None:
    body = ASK | {"stream": True, "stream_options": {"include_usage": True}}
    reply = client.post(CHAT, json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    first, *middle, last, usage = events(reply)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert all(set(chunk["choices"][0]["delta"]) == {"content"} for chunk in middle)
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "length"
    assert {chunk["usage"] for chunk in (first, *middle, last)} == {None}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    assert len({chunk["id"] for chunk in (first, *middle, last, usage)}) == 1


def test_usage_is_left_out_where_nobody_asked(client: httpx.Client) -> None:
    assert all("usage" not in chunk for chunk in events(client.post(CHAT, json=ASK | {"stream": True})))


def test_request_ids(client: httpx.Client) -> None:
    for theirs in ("abc-123", "a" * 128):
        assert client.get("/live", headers={"X-Request-ID": theirs}).headers["x-request-id"] == theirs
    for theirs in (b"a" * 129, b"a b", "å".encode(), b""):
        ours = client.get("/live", headers={b"X-Request-ID": theirs}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", ours)


def test_one_client_may_use_one_id_twice_at_once(client: httpx.Client) -> None:
    headers = {"X-Request-ID": "same"}
    with client.stream("POST", CHAT, json=ASK | {"stream": True, "max_tokens": 100}, headers=headers):
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("Who are", 1), (["Who are", "Vem är"], 2), ([70, 71, 72], 1), ([[70, 71], [72]], 2)],
)
def test_the_four_shapes_of_prompts(client: httpx.Client, prompt: object, count: int) -> None:
    body: dict[str, Any] = {"prompt": prompt, "temperature": 0, "max_tokens": 5, "n": 2, "echo": True}
    whole = client.post("/v1/completions", json=body).json()
    assert [choice["index"] for choice in whole["choices"]] == list(range(2 * count))
    assert whole["usage"]["completion_tokens"] == 2 * count * 5
    joined = [""] * (2 * count)
    for chunk in events(client.post("/v1/completions", json=body | {"stream": True})):
        for choice in chunk["choices"]:
            joined[choice["index"]] += choice["text"]
    assert joined == [choice["text"] for choice in whole["choices"]]


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], ["a", 1], [True], [-1], [512], 5, {}, ["a"] * 65])
def test_prompts_that_are_none(client: httpx.Client, prompt: object) -> None:
    reply = client.post("/v1/completions", json={"prompt": prompt})
    assert reply.status_code == 400
    assert error(reply)["param"].startswith("prompt")


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_a_completion(client: httpx.Client, stream: bool) -> None:
    body: dict[str, Any] = {
        "prompt": "Who are you?", "max_tokens": 6, "temperature": 0, "logprobs": 2, "echo": True,
        "stream": stream,
    }  # fmt: skip
    reply = client.post("/v1/completions", json=body)
    choices = [c for chunk in events(reply) for c in chunk["choices"]] if stream else reply.json()["choices"]
    shapes = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    tokens, offsets, values = (
        [item for shape in shapes for item in shape[name]]
        for name in ("tokens", "text_offset", "token_logprobs")
    )
    prompt = client.post("/tokenize", json={"prompt": "Who are you?"}).json()
    assert len(tokens) == len(offsets) == len(values) == prompt["count"] + 6
    assert values[0] is None
    assert all(value <= 0 for value in values[1:])
    assert offsets == sorted(offsets)


def test_the_prompt_alone_may_be_scored(client: httpx.Client) -> None:
    body = {"prompt": "Who are you?", "max_tokens": 0, "echo": True, "logprobs": 0}
    (choice,) = client.post("/v1/completions", json=body).json()["choices"]
    assert choice["text"] == "Who are you?"
    assert choice["finish_reason"] == "length"
    assert len(choice["logprobs"]["tokens"]) > 1


def test_an_answer_may_be_continued(client: httpx.Client) -> None:
    messages = [*ASK["messages"], {"role": "assistant", "content": "I am a small"}]
    body = ASK | {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
    plain = client.post(CHAT, json=body).json()["choices"][0]["message"]["content"]
    echoed = client.post(CHAT, json=body | {"echo": True}).json()["choices"][0]["message"]["content"]
    assert echoed == "I am a small" + plain
    chunks = events(client.post(CHAT, json=body | {"echo": True, "stream": True}))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == echoed
    assert (
        error(client.post(CHAT, json=body | {"add_generation_prompt": True}))["param"]
        == "continue_final_message"
    )


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ("BASE", "base"),
        ("Auto", f"{EN}@v1.1"),
        ("OneSeek", f"{EN}@v1.1"),
        (BASE.upper(), "base"),
        ("SV", f"{SV}@v1.1"),
    ],
)
def test_header_and_model_have_one_vocabulary(client: httpx.Client, asked: str, answers: str) -> None:
    by_header = client.post(CHAT, json=ASK, headers={"X-OneSeek-Adapter": asked})
    by_model = client.post(CHAT, json=ASK | {"model": asked})
    for answer in (by_header, by_model):
        assert (answer.status_code, answer.headers["X-OneSeek-Adapter"]) == (200, answers)


def test_models(client: httpx.Client) -> None:
    listed = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}
    assert set(listed) == {"oneseek", BASE, EN, f"{EN}@v1.1", SV, f"{SV}@v1.0", f"{SV}@v1.1"}
    assert (listed[SV]["root"], listed[SV]["parent"]) == (f"{SV}@v1.1", BASE)
    assert (listed[f"{SV}@v1.0"]["root"], listed[f"{SV}@v1.0"]["parent"]) == (f"{SV}@v1.0", BASE)
    assert listed[BASE]["parent"] is None
    for name, entry in listed.items():
        assert client.get(f"/v1/models/{name}").json() == entry
    for name in ("auto", "OneSeek", "BASE", f"{BASE}:{SV}", "sv", SV.upper()):
        assert client.get(f"/v1/models/{name}").status_code == 200
    assert client.get(f"/v1/models/{BASE}:{SV}").json() == listed[SV]
    assert error(client.get(f"/v1/models/other:{SV}"))["code"] == "model_not_found"
    assert error(client.get("/v1/models/none@v9"))["code"] == "model_not_found"


def test_tokens_there_and_back(client: httpx.Client) -> None:
    reply = client.post("/tokenize", json={"prompt": "Vem är du?", "return_token_strs": True}).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == CONTEXT
    back = client.post("/detokenize", json={"tokens": reply["tokens"]}).json()
    assert back == {"prompt": "Vem är du?"}


def test_messages_are_tokenised_as_chat_does(client: httpx.Client) -> None:
    reply = client.post("/tokenize", json={"model": SV, "messages": ASK["messages"]}).json()
    assert reply["count"] == client.post(CHAT, json=ASK).json()["usage"]["prompt_tokens"]
    assert error(client.post("/tokenize", json={}))["param"] == "prompt"
    assert error(client.post("/tokenize", json={"model": "none", "prompt": "x"}))["code"] == "model_not_found"
    assert error(client.post("/detokenize", json={"tokens": [512]}))["param"] == "tokens[0]"
    assert (
        error(client.post("/tokenize", json={"prompt": "x", "chat_template": "{{x}}"}))["param"]
        == "chat_template"
    )


@pytest.mark.parametrize("path", [LEGACY, "/inference/mistral", "/inference/llama"])
def test_existing_backends_are_answered(client: httpx.Client, serving: Serving, path: str) -> None:
    body = json.dumps({"text": "Vem är du?", "max_length": 12, "temperature": 0.7, "top_p": 0.9})
    reply = client.post(path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    answer = reply.json()
    assert list(answer) == [
        "response",
        "model",
        "adapter",
        "digest",
        "language",
        "route",
        "tokens",
        "latency_ms",
    ]
    assert answer["model"] == answer["adapter"] == f"{SV}@v1.1"
    assert answer["digest"] == serving.adapters["sv"].digest
    assert answer["language"] == "sv"
    assert answer["route"] == reply.headers["x-oneseek-route"]
    assert 0 < answer["tokens"] <= 12
    assert answer["latency_ms"] > 0
    deprecated = path != LEGACY
    assert ("deprecation" in reply.headers) == deprecated
    if deprecated:
        assert re.fullmatch(r"@\d+", reply.headers["deprecation"])
        assert "deprecation" in client.post(path, content="{}").headers


def test_an_existing_backend_gets_the_imported_adapter_if_only_a_policy_would_choose_the_base(
    client: httpx.Client, serving: Serving
) -> None:
    asked = ("42", "Hvad synes du om mit forslag?", "Kannst du mir bei etwas helfen?")
    before = serving.served.snapshot
    assert {client.post(LEGACY, json={"text": text}).json()["adapter"] for text in asked} == {"base"}
    serving.served.replace(replace(serving.served.resolve(EN), imported=True))
    try:
        answers = [client.post(LEGACY, json={"text": text, "max_tokens": 4}).json() for text in asked]
        assert {answer["adapter"] for answer in answers} == {f"{EN}@v1.1"}
        assert [answer["route"].partition(";")[0] for answer in answers] == [
            "default",
            "no-adapter",
            "no-adapter",
        ]
        named = client.post(LEGACY, json={"text": "42"}, headers={"X-OneSeek-Adapter": "base"})
        assert named.json()["adapter"] == "base"
        messages = [{"role": "user", "content": "42"}]
        assert client.post(CHAT, json=ASK | {"messages": messages}).headers["x-oneseek-adapter"] == "base"
    finally:
        serving.served.snapshot = before


def test_an_existing_backends_generous_bound_is_no_error(client: httpx.Client) -> None:
    assert (
        client.post(LEGACY, json={"text": "Hi", "max_tokens": 100_000, "temperature": 0}).status_code == 200
    )
    reply = client.post(LEGACY, json={"text": "Hi", "max_tokens": 5, "max_length": 5})
    assert error(reply)["param"] == "max_length"
    assert error(client.post(LEGACY, json={"text": "x" * 10_000}))["code"] == "context_length_exceeded"
    assert "'text'" in error(client.post(LEGACY, json={"txt": "x"}))["message"]


@pytest.mark.parametrize(
    ("headers", "body", "status", "param", "code"),
    [
        ({}, {"model": "gpt-4"}, 404, "model", "model_not_found"),
        ({}, {"model": f"{SV}@v9"}, 404, "model", "model_not_found"),
        ({}, {"model": "../../etc/passwd"}, 404, "model", "model_not_found"),
        ({"X-OneSeek-Adapter": "danish"}, {}, 404, "X-OneSeek-Adapter", "adapter_not_found"),
        ({"X-OneSeek-Adapter": "sv=0.5,danish=0.5"}, {}, 404, "X-OneSeek-Adapter", "adapter_not_found"),
        ({"X-OneSeek-Adapter": "a b"}, {}, 400, "X-OneSeek-Adapter", "bad_selection"),
        ({}, {"max_tokens": 1000}, 400, "max_tokens", "context_length_exceeded"),
        ({}, {"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({}, {"min_tokens": 9}, 400, "min_tokens", "invalid_value"),
        ({}, {"tools": [{}]}, 400, "tools[0].type", "missing_required_parameter"),
        ({}, {"response_format": {"type": "grammar"}}, 400, "response_format.type", "invalid_value"),
        ({"Content-Type": "text/plain"}, {}, 415, None, "unsupported_media_type"),
    ],
)
def test_mistakes_are_answered_in_openais_shape(
    client: httpx.Client,
    headers: dict[str, str],
    body: dict[str, Any],
    status: int,
    param: str | None,
    code: str,
) -> None:
    for stream in (False, True):
        reply = client.post(
            CHAT,
            content=json.dumps(ASK | body | {"stream": stream}),
            headers={"Content-Type": "application/json"} | headers,
        )
        detail = error(reply)
        assert (reply.status_code, detail["param"], detail["code"]) == (status, param, code)


def test_paths_and_methods(client: httpx.Client) -> None:
    assert error(client.get("/nowhere"))["code"] == "not_found"
    assert error(client.get("/live//"))["code"] == "not_found"
    reply = client.get(CHAT)
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert error(reply)["code"] == "method_not_allowed"
    assert client.head("/live").status_code == 200


def test_probes(client: httpx.Client, serving: Serving) -> None:
    assert client.get("/live").json() == {"status": "live"}
    assert client.get("/ready").json() == {"status": "ready"}
    health = client.get("/health").json()
    assert health["status"] == "ok"
    if health["engine"] == "embedded":
        assert health["device"] == {"name": "cpu", "provider": "CPUExecutionProvider", "precision": "fp32"}
        assert health["device_fallback"] is None
    assert health["base"] == {"name": BASE, "digest": BASE_DIGEST}
    assert {entry["name"] for entry in health["adapters"]} == {f"{EN}@v1.1", f"{SV}@v1.0", f"{SV}@v1.1"}
    assert set(health["queue"]) == {"running", "waiting", "limit"}
    assert health["uptime"] >= 0
    assert client.get("/version").json()["engine"] == serving.engine.info.name


def test_prompts_and_choices_are_bounded_together(client: httpx.Client) -> None:
    body = {"prompt": ["a"] * 64, "n": 5, "max_tokens": 1}
    assert error(client.post("/v1/completions", json=body))["param"] == "n"
