"""Voices beyond this server: another OneSeek as the service, and several bases in one server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.asgi.app import create_app
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.shared.places import Places
from server.metrics.metrics import Metrics
from server.serving.one_thread import OneThread
from tests.server.api.endpoints.voices.multi_model import FRAGA, PATH, ask, events, refuse
from tests.server.http_server import EN, SV, Made, Serving, make_app, served
from tests.server.serving.test_service import SETTINGS, service

KEY, VARIABLE = "key-of-the-far-server", "ONESEEK_TEST_FAR_KEY"
OPENAI = {key: value for key, value in FRAGA.items() if key != "ignore_eos"}


@pytest.fixture(scope="module")
def far(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """A service with a key."""
    settings = Settings(port=0, max_num_seqs=4, api_keys=(KEY,), log_level="critical", drain_seconds=1)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        serving.http.headers["Authorization"] = f"Bearer {KEY}"
        yield serving


@pytest.fixture(scope="module")
def near(far: Serving, tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """A server that knows the other by three names, two of which lead nowhere."""
    there: dict[str, Any] = {"url": f"{far.url}/v1", "model": SV, "api_key_env": VARIABLE, "timeout": 20}
    tables = {
        "Far": there,
        "stranger": {key: value for key, value in there.items() if key != "api_key_env"},
        "absent": there | {"url": "http://127.0.0.1:9/v1"},
        EN: there,
    }
    external = {name: json.dumps(table) for name, table in tables.items()}
    settings = Settings(
        port=0, max_num_seqs=4, external_models=external, log_level="critical", drain_seconds=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY)
        made = make_app(tiny_base, voices, graphs, settings)
    with served(made, settings, voices) as serving:
        yield serving


def test_a_service_answers_beside_local_voices(near: Serving, far: Serving) -> None:
    body = {"messages": [{"role": "user", "content": FRAGA["question"]}], "model": SV}
    alone = far.http.post(
        "/v1/chat/completions", json=body | {k: v for k, v in OPENAI.items() if k != "question"}
    ).json()
    for stream in (False, True):
        reply = near.http.post(PATH, json=OPENAI | {"models": ["sv", "FAR"], "stream": stream})
        if stream:
            found = events(reply)
            texts = [
                "".join(e["text"] for e in found if e["type"] == "delta" and e["voice"] == v) for v in (0, 1)
            ]
            external = next(event for event in found if event["type"] == "voice" and event["voice"] == 1)
            consensus = found[-1]["consensus"]
        else:
            texts = [voice["text"] for voice in reply.json()["voices"]]
            external, consensus = reply.json()["voices"][1], reply.json()["consensus"]
        assert texts[1] == texts[0] == alone["choices"][0]["message"]["content"]
        assert (external["kind"], external["model"], external["asked"]) == ("external", "Far", ["FAR"])
        assert external["receipt"] is None
        assert external["tokens"]["completion"] == alone["usage"]["completion_tokens"]
        assert external["latency_ms"] > 0
        assert consensus["agreement"] == 1
    label = f'adapter="external",endpoint="{PATH}",language="none",status="200",version="Far"'
    assert near.counts()[f"oneseek_requests_total{{{label}}}"] == 2


def test_services_answer_only_if_they_are_named(near: Serving) -> None:
    assert {voice["kind"] for voice in ask(near.http)["voices"]} == {"local"}


def test_a_name_that_is_served_here_stays_here(near: Serving) -> None:
    (voice,) = ask(near.http, models=[EN])["voices"]
    assert (voice["kind"], voice["model"]) == ("local", f"{EN}@v1.1")


@pytest.mark.parametrize("name", ["absent", "stranger"])
def test_a_service_that_fails_is_reported(near: Serving, name: str) -> None:
    reply = near.http.post(PATH, json=OPENAI | {"models": [name, "sv"]})
    failed, local = reply.json()["voices"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "external_model_failed")
    assert local["status"] == "answered"
    assert KEY not in reply.text
    alone = near.http.post(PATH, json=OPENAI | {"models": [name]})
    assert (alone.status_code, alone.json()["error"]["code"]) == (502, "external_model_failed")


def test_a_service_takes_no_place_and_is_named_once(near: Serving) -> None:
    places = near.engine.places
    assert isinstance(places, Places)
    body = OPENAI | {"models": ["far"], "stream": True, "max_tokens": 60}
    with near.http.stream("POST", PATH, json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        assert places.live == 0
        list(lines)
    twice = refuse(near.http, models=["far", "Far"], ignore_eos=False)
    assert twice == (400, "models[1]", "invalid_value")


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_k", 5), ("min_p", 0.1), ("repetition_penalty", 1.1), ("min_tokens", 2), ("ignore_eos", True)],
)
def test_a_field_that_a_service_does_not_know_is_refused(near: Serving, field: str, value: object) -> None:
    reply = near.http.post(PATH, json=OPENAI | {"models": ["sv", "far"], field: value})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, field, "unsupported_parameter")
    assert near.http.post(PATH, json=OPENAI | {"models": ["sv"], field: value}).status_code == 200


def test_a_start_without_the_key_is_refused(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    external = {"far": json.dumps({"url": "http://127.0.0.1:9", "model": "m", "api_key_env": VARIABLE})}
    settings = Settings(port=0, external_models=external)
    with pytest.raises(SettingsError, match=VARIABLE):
        make_app(tiny_base, voices, graphs, settings)


@pytest.fixture(scope="module")
def two(tiny_base: Path, graphs: Path, voices: Mapping[str, Adapter]) -> Iterator[Serving]:
    """Two bases, each with an adapter of its own."""
    metrics, aside = Metrics(), OneThread()
    services = [
        service("first", tiny_base, graphs, {"sv": voices["sv"]}, metrics, aside),
        service("second", tiny_base, graphs, {"en": voices["en"]}, metrics, aside),
    ]
    runtime = services[0].runtime
    made = Made(create_app(SETTINGS, services, metrics, aside), runtime.engine, runtime.served)
    with served(made, SETTINGS, {}) as serving:
        yield serving


def test_voices_of_several_bases(two: Serving) -> None:
    names = ["base", "second", f"second:{EN}", SV]
    voices = ask(two.http, models=names)["voices"]
    assert [voice["model"] for voice in voices] == ["first", "second", f"{EN}@v1.1", f"{SV}@v1.1"]
    assert [voice["receipt"]["base"] for voice in voices] == ["first", "second", "second", "first"]
    alone = [ask(two.http, models=[name])["voices"][0]["text"] for name in names]
    assert [voice["text"] for voice in voices] == alone
    assert refuse(two.http, models=["first", "base"]) == (400, "models[1]", "invalid_value")
    assert refuse(two.http, models=[f"first:{EN}"]) == (404, "models[0]", "model_not_found")
