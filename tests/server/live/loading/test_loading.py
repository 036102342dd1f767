"""vLLM's pair over HTTP: what it answers, and that nothing is dropped while it works."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from server.api.fields.admin import LORA_HINTS, LORA_REFUSED, lora_table
from tests.server.administered import ENGLISH, SWEDISH, Place, ask, asking, load, unload, until
from tests.server.documented import documented
from tests.server.http_server import Serving
from tests.server.live.loading.vllm_pair import LOAD, error


def test_the_documented_fields_are_the_code() -> None:
    assert documented("Loading adapters") == lora_table()


def test_load_and_unload_answer_as_vllm_does(serving: Serving, more: Callable[[int], Path]) -> None:
    loaded = load(serving.http, "extra", more(1))
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'extra' added successfully.")
    answer = ask(serving.http, "extra")
    assert answer.status_code == 200
    assert answer.headers["X-OneSeek-Adapter"] == "extra@v1.0"
    assert "extra" in {model["id"] for model in serving.http.get("/v1/models").json()["data"]}

    again = load(serving.http, "extra", more(1))
    assert again.status_code == 400
    assert error(again)["type"] == "InvalidUserInput"
    assert error(again)["message"] == (
        "The lora adapter 'extra' has already been loaded. If you want to load the adapter in place, "
        "set 'load_inplace' to True."
    )

    digest = serving.served.resolve("extra").digest
    gone = unload(serving.http, "extra", lora_int_id=7)
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'extra' removed successfully.")
    assert ask(serving.http, "extra").status_code == 404
    until(lambda: digest not in serving.engine.state().resident)

    missing = unload(serving.http, "extra")
    assert missing.status_code == 404
    assert error(missing) == {
        "message": "The lora adapter 'extra' cannot be found.",
        "type": "NotFoundError",
        "param": "lora_name",
        "code": 404,
    }


def test_a_version_is_loaded_beside_others_and_asked_for_by_its_full_name(
    serving: Serving, more: Callable[[int], Path]
) -> None:
    assert load(serving.http, "found-sv@v2.0", more(1)).status_code == 200
    assert ask(serving.http, "found-sv@v2.0").headers["X-OneSeek-Adapter"] == "found-sv@v2.0"
    assert ask(serving.http, "found-sv").headers["X-OneSeek-Adapter"] == "found-sv@v1.0", "it moves no alias"
    assert unload(serving.http, "found-sv@v2.0").status_code == 200
    assert ask(serving.http, "found-sv@v2.0").status_code == 404


def test_in_place_the_new_contents_answer_and_the_old_are_gone(
    serving: Serving, more: Callable[[int], Path]
) -> None:
    assert load(serving.http, "extra", more(1)).status_code == 200
    old = serving.served.resolve("extra").digest
    with asking(serving, "extra") as answers:
        until(lambda: len(answers.seen) > 5)
        assert load(serving.http, "extra", more(2), load_inplace=True).status_code == 200
        begun_after = ask(serving.http, "extra")
        until(lambda: old not in serving.engine.state().resident)
    new = serving.served.resolve("extra").digest
    assert begun_after.headers["X-OneSeek-Adapter-Digest"] == new != old
    assert answers.statuses == {200}
    assert answers.pairs == {("extra@v1.0", old), ("extra@v1.0", new)}


def test_changed_files_are_another_adapter_and_come_in_by_loading_in_place(
    serving: Serving, place: Place, more: Callable[[int], Path]
) -> None:
    folder = place.lora_adapters / "later" / "changing"
    shutil.copytree(more(1), folder)
    assert load(serving.http, "extra", folder).status_code == 200
    first = ask(serving.http, "extra").headers["X-OneSeek-Adapter-Digest"]
    shutil.copytree(more(2), folder, dirs_exist_ok=True)
    assert ask(serving.http, "extra").headers["X-OneSeek-Adapter-Digest"] == first
    for _ in range(2):
        assert load(serving.http, "extra", folder, load_inplace=True).status_code == 200
        assert ask(serving.http, "extra").headers["X-OneSeek-Adapter-Digest"] != first


def test_two_loaded_versions_of_one_alias(serving: Serving, more: Callable[[int], Path]) -> None:
    assert load(serving.http, "pair@v1", more(1)).status_code == 200
    assert load(serving.http, "pair@v2", more(2)).status_code == 200
    unclear = unload(serving.http, "pair")
    assert unclear.status_code == 400
    assert re.search(r"\bpair@v1\b.*\bpair@v2\b", error(unclear)["message"])
    assert unload(serving.http, "pair@v1").status_code == 200, "the active one, as another is left"
    assert ask(serving.http, "pair").headers["X-OneSeek-Adapter"] == "pair@v2"


def test_loading_and_unloading_drops_no_request(serving: Serving, more: Callable[[int], Path]) -> None:
    with asking(serving, "found-sv", clients=2) as answers:
        for round_ in range(6):
            assert load(serving.http, "extra", more(1 + round_ % 3)).status_code == 200
            assert ask(serving.http, "extra").status_code == 200
            assert unload(serving.http, "extra").status_code == 200
    assert len(answers.seen) > 6
    assert answers.statuses == {200}


def test_of_many_that_load_one_name_one_does(serving: Serving, more: Callable[[int], Path]) -> None:
    def attempt(number: int) -> int:
        with httpx.Client(base_url=serving.url, timeout=60, headers=serving.http.headers) as client:
            return load(client, "extra", more(1 + number % 3)).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(attempt, range(8)))
    assert statuses == [200] + [400] * 7
    assert ask(serving.http, "extra").status_code == 200
    until(lambda: len(serving.engine.state().resident) == 2)


def test_a_storm_of_loads_and_unloads_leaves_what_is_named(
    serving: Serving, more: Callable[[int], Path]
) -> None:
    def storm(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=serving.url, timeout=60, headers=serving.http.headers) as client:
            for _ in range(12):
                name, number = chance.choice(["one", "two"]), chance.randint(1, 3)
                match chance.randrange(3):
                    case 0:
                        status = load(client, name, more(number), load_inplace=True).status_code
                        assert status == 200
                    case 1:
                        assert unload(client, name).status_code in (200, 404)
                    case _:
                        assert ask(client, name, max_tokens=2).status_code in (200, 404)

    with asking(serving, "found-sv", clients=1) as answers, ThreadPoolExecutor(4) as pool:
        list(pool.map(storm, range(4)))
    assert answers.statuses == {200}
    named = {adapter.digest for adapter in serving.served.adapters()}
    until(lambda: {*serving.engine.state().resident} == named)


def test_an_answer_that_runs_when_its_adapter_is_unloaded_ends_whole(
    serving: Serving, more: Callable[[int], Path]
) -> None:
    assert load(serving.http, "extra", more(1)).status_code == 200
    digest = serving.served.resolve("extra").digest
    body = {"model": "extra", "prompt": [1, 50, 60], "max_tokens": 200, "ignore_eos": True, "stream": True}
    with serving.http.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        with httpx.Client(base_url=serving.url, headers=serving.http.headers) as other:
            assert unload(other, "extra").status_code == 200
            assert ask(other, "extra").status_code == 404, "named no longer, at once"
        rest = [line for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    until(lambda: digest not in serving.engine.state().resident)


def test_a_language_comes_and_goes_with_its_adapter(
    serving: Serving, place: Place, more: Callable[[int], Path]
) -> None:
    spoken = place.lora_adapters / "later" / "spoken-v1.0-EN"
    shutil.copytree(more(3), spoken)
    assert ask(serving.http, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "base"
    assert load(serving.http, "spoken-en", spoken).status_code == 200
    assert ask(serving.http, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "spoken-en@v1.0"
    assert unload(serving.http, "spoken-en").status_code == 200
    assert ask(serving.http, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "base"


def test_a_second_speaker_takes_no_questions_from_the_first(
    serving: Serving, place: Place, more: Callable[[int], Path]
) -> None:
    second = place.lora_adapters / "later" / "second-v1.0-SV"
    shutil.copytree(more(4), second)
    assert load(serving.http, "second", second).status_code == 200
    assert ask(serving.http, "oneseek", SWEDISH).headers["X-OneSeek-Adapter"] == "found-sv@v1.0"
    assert ask(serving.http, "second").headers["X-OneSeek-Adapter"] == "second@v1.0"


def test_vllms_own_fields_are_taken(serving: Serving, more: Callable[[int], Path]) -> None:
    assert LORA_REFUSED.keys() == {"is_3d_lora_weight"}
    assert {"lora_int_id"} == LORA_HINTS
    assert load(serving.http, "extra", more(1), is_3d_lora_weight=False).status_code == 200


def test_every_change_is_counted_and_told_in_one_line(
    serving: Serving, more: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    counted = 'oneseek_admin_changes_total{action="load",outcome="%s"}'
    before = serving.counts()
    with caplog.at_level("INFO", "oneseek.admin"):
        headers = {"X-Request-ID": "the-request"}
        body = {"lora_name": "extra", "lora_path": str(more(1))}
        assert serving.http.post(LOAD, json=body, headers=headers).status_code == 200
        assert load(serving.http, "bad\nname", more(2)).status_code == 400
    after = serving.counts()
    for outcome in ("ok", "refused"):
        assert after[counted % outcome] == before.get(counted % outcome, 0) + 1
    lines = [record.getMessage() for record in caplog.records if record.name == "oneseek.admin"]
    digest = serving.served.resolve("extra").digest
    assert f"action=load name='extra@v1.0' digest={digest} outcome=ok request=the-request key=" in lines[0]
    assert r"action=load name='bad\nname' outcome=refused code=invalid_value request=" in lines[1]
    assert "\n" not in "".join(lines)


def test_more_are_loaded_than_the_engine_has_slots(serving: Serving, more: Callable[[int], Path]) -> None:
    """Those that fit no more make way, and come back when they are asked for."""
    names = [f"room-{number}" for number in range(8)]
    statuses: list[int] = []
    for number, name in enumerate(names):
        folder = more(1).parent / f"room-{number}"
        if not folder.exists():
            shutil.copytree(more(1), folder)
            config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
            config["lora_alpha"] = 3 + number
            (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        statuses.append(load(serving.http, name, folder).status_code)
    assert statuses == [200] * 8
    assert len(serving.engine.state().resident) <= serving.engine.info.max_adapters
    told = [ask(serving.http, name).headers for name in names]
    assert [headers["X-OneSeek-Adapter"] for headers in told] == [f"{name}@v1.0" for name in names]
    waited = [
        float(headers["X-OneSeek-Adapter-Wait"]) for headers in told if "X-OneSeek-Adapter-Wait" in headers
    ]
    assert waited
    assert all(seconds > 0 for seconds in waited)
    assert "X-OneSeek-Adapter-Wait" not in ask(serving.http, names[-1]).headers
    evictions = "oneseek_adapter_evictions_total"
    assert sum(value for name, value in serving.counts().items() if name.startswith(evictions)) >= len(waited)
    assert {unload(serving.http, name).status_code for name in names} == {200}
