"""Structured output as clients ask for it: OpenAI's `response_format`, vLLM's fields, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, Field

from tests.server.http_server import EN, SV, Serving

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]
ASK: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 100, "seed": 1}
SCHEMA = "response_format.json_schema.schema"


class Step(BaseModel):
    number: Annotated[int, Field(ge=0, le=99)]
    done: bool


class Plan(BaseModel):
    name: Annotated[str, Field(max_length=5)]
    steps: Annotated[list[Step], Field(max_length=2)]


@pytest.fixture
def ai(serving: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def wanting(schema: object, **more: object) -> dict[str, Any]:
    named = {"name": "plan", "schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    choice = reply.json()["choices"][0]
    assert choice["finish_reason"] == "stop", reply.text
    return choice["message"]["content"] if "message" in choice else choice["text"]


def test_the_clients_own_parse(ai: OpenAI) -> None:
    for seed in range(5):
        answer = ai.chat.completions.parse(
            model=SV, messages=MESSAGES, response_format=Plan, max_tokens=150, seed=seed, n=2
        )
        for choice in answer.choices:
            assert isinstance(choice.message.parsed, Plan)
            assert choice.finish_reason == "stop"


def test_the_clients_own_stream(ai: OpenAI) -> None:
    asked: dict[str, Any] = {"model": EN, "messages": MESSAGES, "max_tokens": 150, "seed": 4}
    with ai.chat.completions.stream(**asked, response_format=Plan) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_completion().choices[0].message
    assert "content.delta" in kinds
    assert isinstance(streamed.parsed, Plan)
    whole = ai.chat.completions.parse(**asked, response_format=Plan).choices[0].message
    assert whole.content == streamed.content


def test_an_object_without_a_word_of_it(client: httpx.Client) -> None:
    body = ASK | {"response_format": {"type": "json_object"}, "logit_bias": {"128": 30}, "temperature": 0.5}
    assert isinstance(json.loads(text_of(client.post(CHAT, json=body))), dict)


def test_text_asks_for_nothing(client: httpx.Client) -> None:
    plain = client.post(CHAT, json=ASK | {"temperature": 0}).json()["choices"]
    asked = ASK | {"temperature": 0, "response_format": {"type": "text"}}
    assert client.post(CHAT, json=asked).json()["choices"] == plain


@pytest.mark.parametrize(
    ("wish", "pattern"),
    [
        ({"structured_outputs": {"choice": ["ja", "nej"]}}, "ja|nej"),
        ({"structured_outputs": {"regex": r"\d{3}-[a-c]/x"}}, r"\d{3}-[a-c]/x"),
        ({"structured_outputs": {"grammar": 'start: "a" b\nb: /[0-9]/'}}, r"a\d"),
        ({"structured_outputs": {"json": {"enum": ["å", 2]}}}, '"å"|2'),
        ({"structured_outputs": {"json": '{"const": [1]}'}}, r"\[1\]"),
        ({"guided_choice": ["kanske"]}, "kanske"),
        ({"guided_regex": "x{3}"}, "xxx"),
        ({"guided_grammar": 'start: "q"'}, "q"),
        ({"guided_json": {"const": None}}, "null"),
        ({"guided_json": '{"const": "\\ud83d\\ude00"}'}, '"😀"'),
        (wanting({"type": "boolean"}, strict=True, description="Yes or no"), "true|false"),
        (wanting({"$ref": "#/$defs/a", "$defs": {"a": {"const": 1}}}, strict=None), "1"),
    ],
)
def test_every_kind_on_both_endpoints(client: httpx.Client, wish: dict[str, Any], pattern: str) -> None:
    assert re.fullmatch(pattern, text_of(client.post(CHAT, json=ASK | wish)))
    prompt = {"prompt": ["Hi", "Hej"], "max_tokens": 100, "seed": 1}
    assert re.fullmatch(pattern, text_of(client.post(TEXT, json=prompt | wish)))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("wish", "param", "quoted"),
    [
        (wanting({"type": "rubbish"}), f"{SCHEMA}.type", "rubbish"),
        (wanting({"properties": {"a": {"type": "strin"}}}), f"{SCHEMA}.properties.a.type", "strin"),
        (
            {"structured_outputs": {"json": {"items": {"required": "a"}}}},
            "structured_outputs.json.items.required",
            "list",
        ),
        ({"guided_json": '{"anyOf": [{"enum": 1}]}'}, "guided_json.anyOf[0].enum", "list"),
        (wanting({"not": {}}), SCHEMA, "not"),
        (wanting({"type": "string", "pattern": "(?=x)y"}), SCHEMA, "look-ahead"),
        (wanting({"$ref": "http://127.0.0.1:1/schema"}), SCHEMA, "$defs"),
        (wanting({"items": {"$ref": "other.json"}}), SCHEMA, "$defs"),
        (wanting(nested(70)), SCHEMA, "64"),
        (wanting({"type": "array", "minItems": 10**9}), SCHEMA, "minItems"),
        (wanting({"type": "integer", "multipleOf": 9999991}), SCHEMA, ""),
        (wanting({"enum": [f"value-{i}" for i in range(20_000)]}), SCHEMA, "128 KiB"),
        (wanting({"x-guidance": {"lenient": True}, "not": {}}), SCHEMA, "x-guidance"),
        (wanting({"$ref": "#"}), SCHEMA, ""),
        (wanting(["a"]), SCHEMA, ""),
        (wanting({}, name="två ord"), "response_format.json_schema.name", "två ord"),
        (wanting({}, extra=1), "response_format.json_schema.extra", "extra"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", ""),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type", "structural_tag"),
        ({"response_format": {}}, "response_format.type", ""),
        ({"response_format": "json"}, "response_format", "json"),
        ({"structured_outputs": {}}, "structured_outputs", "regex"),
        (
            {"structured_outputs": {"json": {}, "regex": "a"}},
            "structured_outputs.json",
            "structured_outputs.regex",
        ),
        ({"structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern", ""),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", ""),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex", "is invalid: invalid regex"),
        ({"structured_outputs": {"grammar": "root ::= 'a'"}}, "structured_outputs.grammar", "line 1, "),
        ({"guided_json": "{"}, "guided_json", ""),
        ({"guided_json": "[]"}, "guided_json", ""),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "response_format",
            "guided_regex",
        ),
        ({"guided_decoding_backend": "xgrammar"}, "guided_decoding_backend", "llguidance"),
    ],
)
def test_what_cannot_be_served_is_named(
    client: httpx.Client, wish: dict[str, Any], param: str, quoted: str
) -> None:
    for stream in (False, True):
        reply = client.post(CHAT, json=ASK | wish | {"stream": stream})
        detail = reply.json()["error"]
        assert (reply.status_code, detail["param"]) == (400, param), detail
        assert quoted in detail["message"]
        assert len(detail["message"]) < 450


def test_the_official_client_sees_a_bad_request(ai: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ai.chat.completions.create(model=EN, messages=MESSAGES, extra_body={"guided_regex": "[z-a]"})
    assert error.value.param == "guided_regex"


def test_hostile_and_honest_requests_together(client: httpx.Client) -> None:
    def post(body: dict[str, Any]) -> httpx.Response:
        return client.post(CHAT, json=ASK | body)

    bombs = [wanting({"type": "integer", "multipleOf": 9999991 + i}) for i in range(2)]
    honest = [{"structured_outputs": {"choice": [f"svar {i}"]}} for i in range(4)]
    free = [{"max_tokens": 4}] * 4
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(post, [*bombs, *honest, *free]))
    assert [reply.status_code for reply in replies] == [400] * 2 + [200] * 8
    assert [text_of(reply) for reply in replies[2:6]] == [f"svar {i}" for i in range(4)]


def test_the_legacy_endpoints_take_none(client: httpx.Client) -> None:
    reply = client.post("/inference/oneseek", json={"text": "Hi", "response_format": {"type": "json_object"}})
    assert reply.json()["error"]["code"] == "unknown_parameter"
