"""Two bases in one process: every endpoint finds the right one, by name and by language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.registry.intake import Base
from adapters.registry.registry import Registry
from bench.random_model import DecoderShape, write_model
from server.config.bases import BaseOptions
from server.config.settings import RoutingOptions
from tests.server.http_server import eventually
from tests.server.tool_bases import write_tool_tokenizer
from tests.server.two_bases import (
    CHAT,
    EN,
    ENGLISH,
    NORTH,
    SOUTH,
    SV,
    SWEDISH,
    TwoBases,
    TwoServing,
    two_bases_served,
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBases:
    return TwoBases.make(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def server(two: TwoBases) -> Iterator[TwoServing]:
    with two_bases_served(two.settings(two.root / "home"), two.root) as serving:
        yield serving


@pytest.mark.parametrize(
    ("text", "model", "base", "adapter"),
    [
        (ENGLISH, "oneseek", SOUTH, f"{EN}@v1"),
        (SWEDISH, "oneseek", NORTH, f"{SV}@v1"),
        (SWEDISH, "base", SOUTH, "base"),
        (SWEDISH, "SOUTH", SOUTH, "base"),
        (SWEDISH, "south:base", SOUTH, "base"),
        (ENGLISH, "north", NORTH, "base"),
        (ENGLISH, "North:NORTH-sv", NORTH, f"{SV}@v1"),
        (ENGLISH, SV, NORTH, f"{SV}@v1"),
        (ENGLISH, f"{SV}@v1", NORTH, f"{SV}@v1"),
        (ENGLISH, "sv", NORTH, f"{SV}@v1"),
        (ENGLISH, f"north:{SV}=0.5", NORTH, f"{SV}@v1=0.5"),
        (ENGLISH, "north:auto", NORTH, "base"),
        (SWEDISH, "north:oneseek", NORTH, f"{SV}@v1"),
        ("12345", "oneseek", SOUTH, "south-en@v1"),
    ],
)
def test_who_answers(server: TwoServing, text: str, model: str, base: str, adapter: str) -> None:
    by_model, by_header = (
        server.ask(text, model=model),
        server.ask(text, headers={"X-OneSeek-Adapter": model}),
    )
    for answer in (by_model, by_header):
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-oneseek-base"], answer.headers["x-oneseek-adapter"]) == (base, adapter)
        digest = next(one for one in server.services if one.runtime.name == base).runtime.info.base_digest
        assert answer.json()["system_fingerprint"].split("_")[1] == digest.removeprefix("sha256:")[:12]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        (f"{EN}=0.5,{SV}=0.5", 400, "bad_selection"),
        (f"{EN}=0.5,north:{SV}=0.5", 400, "bad_selection"),
        (f"south:{SV}", 404, "model_not_found"),
        ("west", 404, "model_not_found"),
        (f"west:{SV}", 404, "model_not_found"),
    ],
)
def test_what_no_base_can_answer(server: TwoServing, model: str, status: int, code: str) -> None:
    answer = server.ask(ENGLISH, model=model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_header_decides_and_the_model_of_another_base_is_known(server: TwoServing) -> None:
    answer = server.ask(ENGLISH, model=SV, headers={"X-OneSeek-Adapter": EN})
    assert answer.headers["x-oneseek-base"] == SOUTH
    refused = server.ask(ENGLISH, model="nobody", headers={"X-OneSeek-Adapter": EN})
    assert refused.json()["error"]["code"] == "model_not_found"


def test_a_conversation_stays_on_its_base_while_its_language_stays(server: TwoServing) -> None:
    def talk(*texts: str) -> str:
        messages: list[dict[str, str]] = []
        for text in texts:
            messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "…"}]
        body = {"model": "oneseek", "messages": messages[:-1], "max_tokens": 2}
        return server.serving.http.post(CHAT, json=body).headers["x-oneseek-base"]

    assert talk(SWEDISH, "ok") == NORTH
    assert talk(ENGLISH, "ok") == SOUTH
    assert talk(SWEDISH, ENGLISH, ENGLISH) == SOUTH


def test_every_endpoint_routes_by_language(server: TwoServing) -> None:
    http = server.serving.http
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": SWEDISH, "max_tokens": 2}),
        ("/v1/responses", {"input": SWEDISH, "max_output_tokens": 2}),
        ("/inference/oneseek", {"text": SWEDISH, "max_tokens": 2}),
        ("/inference/mistral", {"text": SWEDISH, "max_tokens": 2}),
    ]
    for path, body in asked:
        model = {} if path.startswith("/inference") else {"model": "oneseek"}
        answer = http.post(path, json=body | model)
        assert (answer.status_code, answer.headers["x-oneseek-base"]) == (200, NORTH), answer.text
    with http.stream(
        "POST",
        CHAT,
        json={
            "model": "oneseek",
            "stream": True,
            "max_tokens": 3,
            "messages": [{"role": "user", "content": SWEDISH}],
        },
    ) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
    assert {json.loads(line[6:])["model"] for line in lines} == {f"{SV}@v1"}


def test_tokens_of_a_prompt_stay_on_the_base_that_is_named_or_the_default(server: TwoServing) -> None:
    http = server.serving.http
    tokens = {
        model: http.post("/tokenize", json={"model": model, "prompt": SWEDISH}).json()["tokens"]
        for model in (NORTH, SOUTH, SV, "oneseek")
    }
    assert tokens[NORTH] != tokens[SOUTH]
    assert tokens[SV] == tokens["oneseek"] == tokens[NORTH]
    back = http.post("/detokenize", json={"model": NORTH, "tokens": tokens[NORTH]}).json()["prompt"]
    assert back.strip() == SWEDISH
    for model, base in ((NORTH, NORTH), ("oneseek", SOUTH)):
        given = {"model": model, "prompt": tokens[base], "max_tokens": 2}
        assert http.post("/v1/completions", json=given).headers["x-oneseek-base"] == base
    both = {"model": SV, "prompt": tokens[SOUTH], "max_tokens": 2}
    answer = http.post("/v1/completions", json=both, headers={"X-OneSeek-Adapter": EN})
    assert (answer.status_code, answer.headers["x-oneseek-adapter"]) == (200, f"{EN}@v1")
    beyond = {"model": NORTH, "prompt": [399], "max_tokens": 2}  # a token of the south alone
    assert http.post("/v1/completions", json=beyond).status_code == 400
    assert http.post("/v1/completions", json=beyond | {"model": SOUTH}).status_code == 200


def test_grammars_and_tools_are_of_the_base_that_answers(server: TwoServing) -> None:
    for text, base in ((ENGLISH, SOUTH), (SWEDISH, NORTH)):
        choice = {"structured_outputs": {"choice": ["ja tack", "nej tack"]}, "max_tokens": 20}
        answer = server.ask(text, **choice)
        assert answer.headers["x-oneseek-base"] == base
        assert answer.json()["choices"][0]["message"]["content"] in ("ja tack", "nej tack")


def test_tools_are_called_by_the_base_whose_template_has_them(two: TwoBases, tmp_path: Path) -> None:
    calling = tmp_path / "calling"
    write_model(calling, DecoderShape(32, 2, 2, 1, 16, 64, 600, 512))
    write_tool_tokenizer(calling, "named")
    settings = two.settings(tmp_path / "home", routing=RoutingOptions(languages={"sv": "calling"}))
    bases = {SOUTH: settings.bases[SOUTH], "calling": BaseOptions(path=calling)}
    parameters = {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}
    function = {"name": "get", "parameters": parameters | {"additionalProperties": False}}
    asked = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    with two_bases_served(replace(settings, bases=bases), tmp_path) as server:
        answer = server.ask(SWEDISH, **asked, max_tokens=120)
        assert answer.headers["x-oneseek-base"] == "calling"
        (call, *_) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "get"
        refused = server.ask(ENGLISH, **(asked | {"tool_choice": "auto"}), model=SOUTH)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")


def test_models_lists_every_base(server: TwoServing) -> None:
    http = server.serving.http
    entries = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
    assert entries.keys() == {"oneseek", SOUTH, EN, f"{EN}@v1", NORTH, SV, f"{SV}@v1"}
    assert (entries[EN]["parent"], entries[SV]["parent"]) == (SOUTH, NORTH)
    for name, found in ((f"{NORTH}:{SV}", SV), ("base", SOUTH), (f"{NORTH}:base", NORTH), ("sv", SV)):
        assert http.get(f"/v1/models/{name}").json()["id"] == found
    assert http.get(f"/v1/models/{SOUTH}:{SV}").status_code == 404


def test_health_and_metrics_know_the_base(server: TwoServing) -> None:
    server.ask(SWEDISH)
    health = server.serving.http.get("/health").json()
    assert [(one["name"], one["state"], one["ready"]) for one in health["bases"]] == [
        (SOUTH, "loaded", True),
        (NORTH, "loaded", True),
    ]
    lines = server.serving.http.get("/metrics").text.splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert len(samples) == len({line.rsplit(" ", 1)[0] for line in samples}), "a series is there twice"
    assert all('base="' in line or 'model_name="' in line for line in samples)
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for name in (
        "tokens_total",
        "requests_total",
        "queue_seconds_count",
        "adapter_resident",
        "route_decisions_total",
    ):
        assert any(line.startswith(f"oneseek_{name}{{") and f'base="{NORTH}"' in line for line in samples), (
            name
        )


def test_the_admin_api_finds_the_base(two: TwoBases, tmp_path: Path) -> None:
    folder = two.adapter(NORTH, two.root / "adapters" / "new-north", 7)
    settings = two.settings(tmp_path / "home")
    with two_bases_served(settings, tmp_path) as server:
        http = server.serving.http
        given = {"lora_path": str(folder)}
        taken = http.post("/v1/load_lora_adapter", json=given | {"lora_name": f"{NORTH}:{EN}"})
        assert (taken.status_code, taken.json()["error"]["code"]) == (400, 400)
        unfit = http.post("/v1/load_lora_adapter", json=given | {"lora_name": f"{SOUTH}:fresh"})
        assert unfit.status_code == 400
        for name in (f"{NORTH}:fresher", "fresh"):  # the folder fits the north alone
            loaded = http.post("/v1/load_lora_adapter", json=given | {"lora_name": name})
            assert loaded.status_code == 200, loaded.text
        assert server.ask(ENGLISH, model="fresh").headers["x-oneseek-base"] == NORTH
        assert http.post("/v1/unload_lora_adapter", json={"lora_name": "fresh"}).status_code == 200

        added = http.post(
            "/admin/adapters", json={"path": str(folder), "alias": f"{NORTH}:kept", "version": "v1"}
        )
        assert (added.status_code, added.json()["live"]) == (200, True), added.text
        other = two.adapter(NORTH, two.root / "adapters" / "newer-north", 8)
        again = http.post("/admin/adapters", json={"path": str(other), "alias": "kept", "version": "v2"})
        assert again.status_code == 200, again.text
        for path, body in (
            ("kept@v2/promote", None),
            ("north:kept/rollback", None),
            ("north:kept/verify", None),
            ("kept/canary", {"shares": {"v1": 50, "v2": 50}}),
            ("north:kept/settle", {}),
            ("kept@v2/retire", None),
        ):
            done = (
                http.post(f"/admin/adapters/{path}", json=body)
                if body is not None
                else http.post(f"/admin/adapters/{path}")
            )
            assert done.status_code == 200, (path, done.text)
        listed = {one["name"]: one for one in http.get("/admin/adapters").json()["data"]}
        assert (listed["kept@v1"]["base_name"], listed["kept@v1"]["served"]) == (NORTH, True)
        assert (listed["kept@v2"]["base_name"], listed["kept@v2"]["retired"]) == (None, True)
        assert http.get("/admin/adapters/north:kept").json()["base_name"] == NORTH
        missing = http.get("/admin/adapters/west:kept")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "base_not_found")
        assert (
            http.post("/admin/adapters", json={"path": str(folder), "alias": f"{SOUTH}:{SV}"}).status_code
            == 409
        )


def test_what_another_process_adds_comes_to_its_base_alone(two: TwoBases, tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = two.settings(home, follow_registry=0.1)
    with two_bases_served(settings, tmp_path) as server:
        registry = Registry(home, Ledger.open(home / "ledger"))
        for base, seed in ((NORTH, 7), (SOUTH, 8)):
            folder = two.adapter(base, two.root / "adapters" / f"beside-{base}", seed)
            found = replace(find_base(tmp_path, two.bases[base]), name=base)
            registry.add(folder, base=Base.read(found, home / "cache"), alias=f"beside-{base}", version="v1")
        for base in (NORTH, SOUTH):
            assert eventually(
                lambda base=base: server.ask(ENGLISH, model=f"beside-{base}").status_code == 200
            )
            assert server.ask(ENGLISH, model=f"beside-{base}").headers["x-oneseek-base"] == base
        adapters = server.serving.http.get("/health").json()["adapters"]
        assert not [one for one in adapters if one["problem"] is not None]
        assert len(adapters) == len({one["name"] for one in adapters}) == 4


def test_a_canary_divides_on_its_own_base(two: TwoBases, tmp_path: Path) -> None:
    with two_bases_served(two.settings(tmp_path / "home"), tmp_path) as server:
        http = server.serving.http
        for version, seed in (("v1", 7), ("v2", 8)):
            folder = two.adapter(NORTH, two.root / "adapters" / f"canary-{version}", seed)
            body = {"path": str(folder), "alias": "both", "version": version}
            assert http.post("/admin/adapters", json=body).status_code == 200
        assert (
            http.post("/admin/adapters/both/canary", json={"shares": {"v1": 50, "v2": 50}}).status_code == 200
        )
        seen = {server.ask(f"{ENGLISH} {n}", model="both").headers["x-oneseek-adapter"] for n in range(24)}
        assert seen == {"both@v1", "both@v2"}


def test_a_base_on_demand_comes_and_goes(two: TwoBases, tmp_path: Path) -> None:
    settings = two.settings(tmp_path / "home", base_idle_seconds=0.5)
    options: dict[str, BaseOptions] = dict(settings.bases)
    options[NORTH] = replace(options[NORTH], on_demand=True)
    settings = replace(settings, bases=options)
    with two_bases_served(settings, tmp_path) as server:
        http, demand = server.serving.http, server.services[1].runtime.on_demand
        assert demand is not None

        def state() -> str:
            return http.get("/health").json()["bases"][1]["state"]

        assert (state(), http.get("/ready").status_code) == ("unloaded", 200)
        assert server.serving.counts()[f'oneseek_base_loaded{{base="{NORTH}"}}'] == 0
        assert http.post("/tokenize", json={"model": NORTH, "prompt": "hej"}).status_code == 200
        assert state() == "unloaded"
        answer = server.ask(SWEDISH)
        assert (answer.status_code, answer.headers["x-oneseek-adapter"]) == (200, f"{SV}@v1")
        first = answer.json()["choices"][0]["message"]["content"]
        assert state() == "loaded"
        assert eventually(lambda: state() == "unloaded")
        assert server.ask(ENGLISH).status_code == 200
        assert server.ask(SWEDISH).json()["choices"][0]["message"]["content"] == first
        counts = server.serving.counts()
        assert counts[f'oneseek_base_loaded{{base="{NORTH}"}}'] == 1
        assert counts[f'oneseek_base_loads_total{{base="{NORTH}",outcome="ok"}}'] == 2
        assert counts[f'oneseek_base_unloads_total{{base="{NORTH}",reason="idle"}}'] == 1

        assert eventually(lambda: state() == "unloaded")
        graphs = list((tmp_path / "home" / "graphs").rglob("*"))
        moved = list(two.bases[NORTH].glob("*.safetensors"))
        for path in (*moved, two.bases[NORTH] / "config.json"):
            path.rename(path.with_suffix(".away"))
        try:
            refused = server.ask(SWEDISH)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "base_unavailable"), graphs
            assert NORTH in refused.json()["error"]["message"]
            assert str(two.root) not in refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert (server.ask(ENGLISH).status_code, http.get("/ready").status_code) == (200, 200)
            assert state() == "failed"
        finally:
            for path in (*moved, two.bases[NORTH] / "config.json"):
                path.with_suffix(".away").rename(path)


def test_a_request_that_waits_too_long_is_told_when_to_come_again(two: TwoBases, tmp_path: Path) -> None:
    settings = two.settings(tmp_path / "home", base_wait_seconds=0)
    bases: dict[str, BaseOptions] = dict(settings.bases)
    bases[NORTH] = replace(bases[NORTH], on_demand=True)
    with two_bases_served(replace(settings, bases=bases), tmp_path) as server:
        early = server.ask(SWEDISH)
        assert (early.status_code, early.json()["error"]["code"]) == (503, "base_not_loaded")
        assert int(early.headers["retry-after"]) >= 1
        assert NORTH in early.json()["error"]["message"]
        assert eventually(lambda: server.ask(SWEDISH).status_code == 200)


def test_one_base_makes_room_for_the_other(two: TwoBases, tmp_path: Path) -> None:
    settings = two.settings(tmp_path / "home")
    options = {name: replace(one, on_demand=True) for name, one in settings.bases.items()}
    settings = replace(settings, bases=options, max_loaded_bases=1)
    with two_bases_served(settings, tmp_path) as server:
        for text, base in ((ENGLISH, SOUTH), (SWEDISH, NORTH), (ENGLISH, SOUTH)):
            assert server.ask(text).headers["x-oneseek-base"] == base
            loaded = [
                one.runtime.name
                for one in server.services
                if one.runtime.on_demand and one.runtime.on_demand.phase == "loaded"
            ]
            assert loaded == [base]
