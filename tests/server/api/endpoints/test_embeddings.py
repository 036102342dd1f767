"""`/v1/embeddings`: refused where the base writes text, and the whole path where it makes vectors."""

from __future__ import annotations

import base64
import json
import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from openai.types import EmbeddingCreateParams

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import LanguageRow, RoutingSettings
from server.api.fields.embeddings import (
    EMBEDDING_HINTS,
    EMBEDDING_REFUSED,
    MAX_INPUTS,
    EmbeddingFields,
    embedding_table,
)
from server.api.fields.generation import known
from server.config.settings import Settings
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer
from tests.server.documented import documented
from tests.server.http_server import (
    BASE,
    BASE_DIGEST,
    CONTEXT,
    EN,
    SV,
    Made,
    Serving,
    lengths_read,
    one_base_app,
    served,
)
from tests.server.vectors import BROKEN, SLOW, WIDTH, TokenVectors, vector

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer.load(tiny_base)


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> TokenVectors:
    return TokenVectors(tokenizer)


@pytest.fixture(scope="module")
def embedding(engine: TokenVectors, tokenizer: Tokenizer, voices: dict[str, Adapter]) -> Iterator[Serving]:
    limits = Settings(port=0, log_level="warning", max_queue=32, drain_seconds=1)
    routing = RoutingSettings(languages=(LanguageRow("en", EN), LanguageRow("sv", SV)))
    adapters = ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE)
    router = Router(routing, ProfileDetector(routing))
    app = one_base_app(limits, engine, adapters, router, tokenizer, BASE, Metrics())
    with served(Made(app, engine, adapters), limits, voices) as serving:
        yield serving


@pytest.fixture
def ai(embedding: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{embedding.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(engine: TokenVectors) -> None:
    engine.most, engine.pause = 0, 0.0


def near(one: list[float], other: tuple[float, ...]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one, other, strict=True)
    )


def test_the_receipt_has_no_times_of_tokens(embedding: Serving) -> None:
    for body, headers in (({"receipt": True}, {}), ({}, {"X-OneSeek-Receipt": "body"})):
        reply = embedding.http.post(PATH, json={"input": "Vem är du?"} | body, headers=headers)
        receipt = reply.json()["receipt"]
        assert receipt["adapter"] == reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
        assert receipt["request_id"] == reply.headers["x-request-id"]
        assert list(receipt.values())[-4:] == [None] * 4
    assert "receipt" not in embedding.http.post(PATH, json={"input": "Hej"}).json()


def test_voices_write_text(embedding: Serving) -> None:
    reply = embedding.http.post("/api/oqt/multi-model-query", json={"question": "Hej", "models": ["sv"]})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "models[0]")


@pytest.mark.parametrize("stored", ["float", "base64"])
def test_a_text(ai: OpenAI, tokenizer: Tokenizer, stored: Any) -> None:
    answer = ai.embeddings.create(model=BASE, input="Who are you?", encoding_format=stored)
    assert (answer.object, answer.model) == ("list", BASE)
    (item,) = answer.data
    tokens = tuple(tokenizer.encode("Who are you?"))
    values: Any = item.embedding
    if stored == "base64":
        values = list(struct.unpack(f"<{WIDTH}f", base64.b64decode(values)))
    assert near(values, vector(tokens))
    assert (item.object, item.index) == ("embedding", 0)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == len(tokens)


def test_the_client_unpacks_what_it_asks_for_by_default(ai: OpenAI, tokenizer: Tokenizer) -> None:
    answer = ai.embeddings.create(model=BASE, input="Hej")
    assert near(answer.data[0].embedding, vector(tuple(tokenizer.encode("Hej"))))


def test_every_shape_of_input(ai: OpenAI, tokenizer: Tokenizer) -> None:
    texts = ["Who are you?", "Vem är du?", "Who are you?"]
    ids = [tokenizer.encode(text) for text in texts]
    by_text = ai.embeddings.create(model=BASE, input=texts)
    by_ids = ai.embeddings.create(model=BASE, input=ids)
    assert [item.embedding for item in by_text.data] == [item.embedding for item in by_ids.data]
    assert [item.index for item in by_text.data] == [0, 1, 2]
    assert by_text.data[0].embedding == by_text.data[2].embedding != by_text.data[1].embedding
    assert by_text.usage.prompt_tokens == sum(len(tokens) for tokens in ids)
    one = ai.embeddings.create(model=BASE, input=ids[1])
    assert one.data[0].embedding == by_text.data[1].embedding


def test_dimensions_and_hints(ai: OpenAI, tokenizer: Tokenizer) -> None:
    answer = ai.embeddings.create(model=BASE, input="Hej", dimensions=4, user="eva")
    assert near(answer.data[0].embedding, vector(tuple(tokenizer.encode("Hej")), "", 4))
    with pytest.raises(openai.BadRequestError) as refused:
        ai.embeddings.create(model=BASE, input="Hej", dimensions=WIDTH + 1)
    assert refused.value.param == "dimensions"


@pytest.mark.parametrize(
    ("header", "model", "text", "adapter", "reason"),
    [
        (None, "oneseek", "Vem är du?", f"{SV}@v1.1", "language"),
        (None, "oneseek", "Who are you?", f"{EN}@v1.1", "language"),
        (None, f"{SV}@v1.0", "Who are you?", f"{SV}@v1.0", "model"),
        ("base", EN, "Vem är du?", "base", "header"),
    ],
)
def test_the_adapter_is_chosen_as_elsewhere(
    ai: OpenAI, embedding: Serving, header: str | None, model: str, text: str, adapter: str, reason: str
) -> None:
    digests = {a.full_name: a.digest for a in embedding.adapters.values()}
    extra = {"X-OneSeek-Adapter": header} if header else {}
    raw = ai.embeddings.with_raw_response.create(model=model, input=text, extra_headers=extra)
    assert raw.headers["x-oneseek-adapter"] == adapter
    assert raw.headers["x-oneseek-adapter-digest"] == digests.get(adapter, "none")
    assert raw.headers["x-oneseek-route"].startswith(reason + ";")
    body = json.loads(raw.http_response.text)
    assert body["system_fingerprint"].startswith("fp_")
    tokens = ai.embeddings.create(model=BASE, input=text)
    same = raw.parse().data[0].embedding == tokens.data[0].embedding
    assert same is (adapter == "base"), "a voice has vectors of its own"


def test_one_adapter_makes_all_vectors_of_a_request(embedding: Serving) -> None:
    swedish, english = "Vem är du, och vad kan du göra för mig i dag?", "Who are you?"
    body = {"model": "oneseek", "input": [swedish, swedish, english]}
    reply = embedding.http.post(PATH, json=body)
    assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
    named = embedding.http.post(PATH, json=body | {"model": SV, "input": english})
    assert reply.json()["data"][2]["embedding"] == named.json()["data"][0]["embedding"]


def test_unknown_names_are_never_the_base(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ai.embeddings.create(model="text-embedding-3-small", input="Hej")
    assert unknown.value.code == "model_not_found"


def test_inputs_are_in_flight_together_and_leave_room_for_others(ai: OpenAI, engine: TokenVectors) -> None:
    engine.pause = 0.01
    answer = ai.embeddings.create(model=BASE, input=[f"text {n}" for n in range(40)])
    assert engine.most == 8, "a quarter of max_queue"
    assert len(answer.data) == 40


def test_an_adapter_that_was_unloaded_is_loaded_again(
    ai: OpenAI, embedding: Serving, engine: TokenVectors
) -> None:
    before = ai.embeddings.create(model=SV, input="Hej").data[0].embedding
    engine.evicts = True
    assert ai.embeddings.create(model=SV, input="Hej").data[0].embedding == before


def test_tokens_are_counted(ai: OpenAI, embedding: Serving) -> None:
    tokens = f'oneseek_tokens_total{{adapter="{SV}",kind="prompt",version="v1.0"}}'
    labels = f'adapter="{SV}",endpoint="{PATH}",language="sv",status="200",version="v1.0"'
    requests = f"oneseek_requests_total{{{labels}}}"
    before = embedding.counts()
    usage = ai.embeddings.create(model=f"{SV}@v1.0", input=["Vem är du?", "Jag är här."]).usage
    after = embedding.counts()
    assert after[tokens] - before.get(tokens, 0.0) == usage.prompt_tokens
    assert after[requests] - before.get(requests, 0.0) == 1


def test_one_failure_ends_the_whole_request(ai: OpenAI, embedding: Serving, engine: TokenVectors) -> None:
    engine.pause = 0.005
    with pytest.raises(openai.InternalServerError) as broken:
        ai.embeddings.create(model=BASE, input=[[80], [BROKEN], [SLOW], [81]])
    assert broken.value.code == "engine_error"
    assert engine.running == 0


def test_a_client_that_leaves_ends_the_work(embedding: Serving, engine: TokenVectors) -> None:
    engine.pause = 0.005
    with httpx.Client(base_url=embedding.url) as client, pytest.raises(httpx.ReadTimeout):
        client.post(PATH, json={"model": BASE, "input": [[SLOW]] * 4}, timeout=0.3)
    end = time.monotonic() + 10
    while engine.running and time.monotonic() < end:
        time.sleep(0.01)
    assert engine.running == 0
    assert embedding.counts()['oneseek_cancelled_total{reason="disconnect"}'] >= 4


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_type"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["Hej", ""]}, "input[1]", "invalid_type"),
        ({"input": [[]]}, "input[0]", "invalid_type"),
        ({"input": [1, "a"]}, "input", "invalid_type"),
        ({"input": ["a", 1]}, "input[1]", "invalid_type"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": [-1]}, "input[0]", "invalid_type"),
        ({"input": [100_000]}, "input[0]", "invalid_value"),
        ({"input": [[70], [100_000]]}, "input[1][0]", "invalid_value"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", "invalid_value"),
        ({"input": [70] * (CONTEXT + 1)}, "input", "context_length_exceeded"),
        ({"input": ["a", "1 " * (CONTEXT + 1)]}, "input[1]", "context_length_exceeded"),
        ({"input": "hej " * 900_000}, "input", "context_length_exceeded"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "a", "dimensions": True}, "dimensions", "invalid_value"),
        ({"input": "a", "dimension": 4}, "dimension", "unknown_parameter"),
        ({"input": "a", "truncate_prompt_tokens": 4}, "truncate_prompt_tokens", "unsupported_parameter"),
        ({"messages": []}, "messages", "unsupported_parameter"),
    ],
)
def test_a_bad_field_is_named(embedding: Serving, fields: dict[str, Any], param: str, code: str) -> None:
    reply = embedding.http.post(PATH, json={"model": BASE} | fields)
    detail = reply.json()["error"]
    assert (reply.status_code, detail["param"], detail["code"]) == (400, param, code)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hej"}]}),
        ("/v1/completions", {"prompt": "Hej"}),
        ("/v1/responses", {"input": "Hej"}),
        ("/v1/responses", {"input": "Hej", "stream": True}),
        ("/inference/oneseek", {"text": "Hej"}),
    ],
)
def test_an_embedding_base_writes_no_text(embedding: Serving, path: str, body: dict[str, Any]) -> None:
    reply = embedding.http.post(path, json=body)
    detail = reply.json()["error"]
    assert (reply.status_code, detail["param"], detail["code"]) == (400, "model", "unsupported_value")
    assert "/v1/embeddings" in detail["message"]


@pytest.mark.parametrize("text", ["Hej", ["Hej"] * 3, "", [[70]], "hej " * 900_000])
def test_a_base_that_writes_text_makes_no_embeddings(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, text: Any
) -> None:
    read = lengths_read(monkeypatch)
    reply = serving.http.post(PATH, json={"model": "oneseek", "input": text})
    assert not read
    detail = reply.json()["error"]
    assert (reply.status_code, detail["param"], detail["code"]) == (400, "model", "unsupported_value")
    assert "embedding" in detail["message"]


def test_the_documented_table_is_the_code() -> None:
    assert documented("Embeddings") == embedding_table()
    assert not set(EmbeddingCreateParams.__annotations__) - set(embedding_table())


@pytest.mark.parametrize("name", sorted(EMBEDDING_REFUSED))
def test_what_cannot_be_honoured_is_refused_by_name(embedding: Serving, name: str) -> None:
    body = {"model": BASE, "input": "Hej"}
    detail = embedding.http.post(PATH, json=body | {name: {"some": "thing"}}).json()["error"]
    assert (detail["param"], detail["code"]) == (name, "unsupported_parameter")
    for harmless in (None, *EMBEDDING_REFUSED[name].harmless):
        assert embedding.http.post(PATH, json=body | {name: harmless}).status_code == 200


Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
Fields = st.sampled_from(sorted(known(EmbeddingFields) | EMBEDDING_HINTS | set(EMBEDDING_REFUSED)))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(Fields, Json, max_size=4))
def test_no_body_makes_the_server_fail(embedding: Serving, fields: dict[str, Any]) -> None:
    for body in (fields, {"input": "Hej"} | fields):
        reply = embedding.http.post(PATH, json=body)
        assert reply.status_code in (200, 400, 404), reply.text
