"""One question to several voices over real HTTP: answers, consensus, streams and refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from server.api.fields.generation import ChatFields, known
from server.api.fields.multi_model import MAX_VOICES, MULTI_MODEL_REFUSED, multi_model_table
from tests.server.api.endpoints.voices.multi_model import FRAGA, PATH, ask, events, refuse, several
from tests.server.api.endpoints.voices.test_receipts import FIELDS
from tests.server.documented import documented
from tests.server.http_server import BASE, CONTEXT, EN, SV, Serving, eventually


def test_the_documented_table_is_the_code() -> None:
    assert documented("Several voices") == multi_model_table()


def test_every_field_of_chat_is_known() -> None:
    assert known(ChatFields) <= set(multi_model_table())
    assert not set(MULTI_MODEL_REFUSED) & set(known(ChatFields)) & {"temperature", "seed", "stream"}


def test_every_voice_answers_as_it_does_alone(client: httpx.Client, serving: Serving) -> None:
    names = several(serving)
    answer = ask(client, models=names)
    assert answer["id"].startswith("multi-")
    assert answer["object"] == "multi_model.answer"
    for number, (name, voice) in enumerate(zip(names, answer["voices"], strict=True)):
        alone = client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": FRAGA["question"]}], "model": name}
            | {key: value for key, value in FRAGA.items() if key != "question"},
            headers={"X-OneSeek-Receipt": "body"},
        ).json()
        assert voice["voice"] == number
        assert voice["asked"] == [name]
        assert voice["kind"] == "local"
        assert voice["status"] == "answered"
        assert voice["error"] is None
        assert voice["text"] == alone["choices"][0]["message"]["content"]
        assert voice["finish_reason"] == alone["choices"][0]["finish_reason"] == "length"
        assert voice["model"] == alone["model"]
        assert voice["tokens"]["completion"] == alone["usage"]["completion_tokens"] == 8
        assert voice["tokens"]["prompt"] == alone["usage"]["prompt_tokens"]
        assert voice["latency_ms"] > 0
        receipt, other = voice["receipt"], alone["receipt"]
        assert list(receipt) == FIELDS
        for field in ("base", "base_digest", "adapter", "version", "digest", "route"):
            assert receipt[field] == other[field]
    assert len({voice["text"] for voice in answer["voices"]}) == len(names)


def test_the_consensus_is_over_the_answers(client: httpx.Client, serving: Serving) -> None:
    answer = ask(client, models=several(serving))
    consensus, count = answer["consensus"], len(answer["voices"])
    assert consensus["measure"] == "chrF"
    pairs = [tuple(pair["voices"]) for pair in consensus["pairs"]]
    assert pairs == [(i, j) for i in range(count) for j in range(i + 1, count)]
    assert all((pair["agreement"] is None) == (not pair["comparable"]) for pair in consensus["pairs"])
    assert sorted(voice for cluster in consensus["clusters"] for voice in cluster) == list(range(count))
    assert consensus["answer"] == answer["voices"][consensus["medoid"]]["text"]
    assert consensus["reason"].endswith(".")
    assert sorted(voice for group in consensus["languages"] for voice in group["voices"]) == list(
        range(count)
    )


def test_without_models_the_base_and_the_languages_answer(client: httpx.Client) -> None:
    voices = ask(client)["voices"]
    assert [voice["model"] for voice in voices] == [BASE, f"{EN}@v1.1", f"{SV}@v1.1"]


def test_messages_are_a_conversation(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": FRAGA["question"]}]
    body = {key: value for key, value in FRAGA.items() if key != "question"}
    reply = client.post(PATH, json=body | {"messages": messages, "models": ["sv"]})
    assert reply.json()["voices"][0]["text"] == ask(client, models=["sv"])["voices"][0]["text"]


def test_one_voice_has_nobody_to_agree_with(client: httpx.Client) -> None:
    consensus = ask(client, models=["sv"])["consensus"]
    assert consensus["agreement"] is None
    assert (consensus["pairs"], consensus["dissenting"], consensus["medoid"]) == ([], [], 0)


def test_an_automatic_voice_that_is_named_too_answers_once(client: httpx.Client) -> None:
    voices = ask(client, models=["oneseek", "en", "sv"])["voices"]
    assert [voice["asked"] for voice in voices] == [["oneseek", "sv"], ["en"]]
    assert voices[0]["model"] == f"{SV}@v1.1"


@pytest.mark.parametrize(
    ("models", "param"),
    [
        (["sv", "sv"], "models[1]"),
        (["sv", " SV "], "models[1]"),
        (["en", "sv", SV], "models[2]"),
        ([SV, f"{SV}@v1.1"], "models[1]"),
        (["base", BASE], "models[1]"),
        (["auto", "sv", "sv=1.0"], "models[2]"),
    ],
)
def test_a_voice_is_named_once(client: httpx.Client, models: list[str], param: str) -> None:
    assert refuse(client, models=models) == (400, param, "invalid_value")


def test_an_unknown_name_is_a_404_before_anything_runs(client: httpx.Client, serving: Serving) -> None:
    key = 'oneseek_tokens_total{adapter="base",kind="prompt",version=""}'
    before = serving.counts().get(key, 0)
    assert refuse(client, models=["base", "nobody"]) == (404, "models[1]", "model_not_found")
    assert refuse(client, models=["sv@v9"]) == (404, "models[0]", "model_not_found")
    assert serving.counts().get(key, 0) == before
    label = f'endpoint="{PATH}",language="none",status="404"'
    assert serving.counts()[f'oneseek_requests_total{{adapter="unknown",{label},version=""}}'] >= 2


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"models": []}, "models", "invalid_value"),
        ({"models": ["base"] * (MAX_VOICES + 1)}, "models", "invalid_value"),
        ({"models": "sv"}, "models", "invalid_value"),
        ({"models": ["sv", 1]}, "models[1]", "invalid_value"),
        ({"models": [""]}, "models[0]", "invalid_value"),
        ({"models": ["sv=9"]}, "models[0]", "bad_selection"),
        ({"models": ["base=0.5,sv=0.5"]}, "models[0]", "bad_selection"),
        ({"question": None}, "question", "invalid_value"),
        ({"question": ""}, "question", "invalid_value"),
        ({"messages": [{"role": "user", "content": "Hej"}]}, "question", "invalid_value"),
        ({"question": None, "messages": []}, "messages", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"model": "sv"}, "model", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"tools": [{}]}, "tools", "unsupported_parameter"),
        ({"modles": ["sv"]}, "modles", "unknown_parameter"),
        ({"question": "ord " * 4 * CONTEXT}, "question", "context_length_exceeded"),
        ({"max_tokens": 4 * CONTEXT}, "max_tokens", "context_length_exceeded"),
    ],
)
def test_what_is_wrong_is_named(client: httpx.Client, fields: dict[str, Any], param: str, code: str) -> None:
    assert refuse(client, **fields) == (400, param, code)
    assert refuse(client, **fields, stream=True) == (400, param, code)


def test_a_header_that_names_one_voice_is_refused(client: httpx.Client) -> None:
    assert refuse(client, {"X-OneSeek-Adapter": "sv"}) == (400, "X-OneSeek-Adapter", "invalid_value")
    assert refuse(client, {"X-OneSeek-Receipt": "other"}) == (400, "X-OneSeek-Receipt", "invalid_value")


def test_a_stream_is_the_whole_in_pieces(client: httpx.Client, serving: Serving) -> None:
    names = several(serving)
    whole = ask(client, models=names)
    opening, *rest = events(client.post(PATH, json=FRAGA | {"models": names, "stream": True}))
    assert opening["type"] == "voices"
    assert [voice["asked"] for voice in opening["voices"]] == [[name] for name in names]
    texts = ["" for _ in names]
    ended: dict[int, dict[str, Any]] = {}
    for event in rest[:-1]:
        if event["type"] == "delta":
            assert event["voice"] not in ended
            texts[event["voice"]] += event["text"]
        else:
            assert event["type"] == "voice"
            ended[event["voice"]] = event
    assert texts == [voice["text"] for voice in whole["voices"]]
    for number, voice in enumerate(whole["voices"]):
        same = ("model", "asked", "kind", "status", "language", "finish_reason", "error")
        assert {name: ended[number][name] for name in same} == {name: voice[name] for name in same}
        assert ended[number]["tokens"]["completion"] == 8
        assert list(ended[number]["receipt"]) == FIELDS
    assert rest[-1] == {"type": "consensus", "consensus": whole["consensus"]}
    order = [event["voice"] for event in rest if event["type"] == "delta"]
    assert order != sorted(order), "they come as they are made"


def test_local_voices_run_in_one_batch(client: httpx.Client, serving: Serving) -> None:
    name = 'oneseek_batch_size_sum{base="tiny"}'
    steps = 'oneseek_batch_size_count{base="tiny"}'
    before = serving.counts()
    ask(client, models=several(serving), max_tokens=64)
    after = serving.counts()
    size = (after[name] - before[name]) / (after[steps] - before[steps])
    assert size > 0.8 * len(several(serving))


def test_each_voice_counts_as_a_request(client: httpx.Client, serving: Serving) -> None:
    def counted() -> dict[str, float]:
        found = serving.counts()
        return {
            name: found.get(
                f'oneseek_requests_total{{adapter="{name}",endpoint="{PATH}",language="sv",'
                f'status="200",version="{version}"}}',
                0,
            )
            for name, version in (("base", ""), (EN, "v1.1"), (SV, "v1.1"))
        }

    before = counted()
    ask(client)
    events(client.post(PATH, json=FRAGA | {"stream": True}))
    assert eventually(lambda: counted() == {name: value + 2 for name, value in before.items()})
    assert not [
        name for name in serving.counts() if PATH in name and 'adapter="none"' in name and '"200"' in name
    ]


def test_the_headers_name_no_single_voice(client: httpx.Client) -> None:
    for stream in (False, True):
        reply = client.post(PATH, json=FRAGA | {"stream": stream})
        assert [name for name in reply.headers if name.startswith("x-oneseek")] == []
        assert reply.headers["x-request-id"]


def test_many_at_once_are_all_answered(client: httpx.Client) -> None:
    def draw(seed: int) -> dict[str, Any]:
        return ask(client, seed=seed, temperature=1)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(draw, range(12)))
    assert all(voice["status"] == "answered" for answer in answers for voice in answer["voices"])
