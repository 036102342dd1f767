"""Several voices when places run out, a voice or the engine fails, or the client leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from server.engines.shared.places import Places
from server.live.slots import residency
from tests.server.administered import Place, administered
from tests.server.api.endpoints.voices.multi_model import FIVE, FRAGA, PATH, ask, events, refuse
from tests.server.engines.making import ENGINES
from tests.server.http_server import SV, Serving, eventually, make_app, served
from tests.server.rolling import Bad


def places(serving: Serving) -> Places[Any]:
    found = serving.engine.places
    assert isinstance(found, Places)
    return cast("Places[Any]", found)


def idle(serving: Serving) -> bool:
    state = serving.engine.state()
    return not places(serving).live and not sum(state.running.values()) and not sum(state.waiting.values())


def test_a_client_that_leaves_ends_every_voice(client: httpx.Client, serving: Serving) -> None:
    def gone() -> float:
        return serving.counts().get('oneseek_cancelled_total{reason="disconnect"}', 0)

    before = gone()
    body = FRAGA | {"max_tokens": 200, "stream": True, "models": ["base", "en", "sv"]}
    with client.stream("POST", PATH, json=body) as reply:
        for line in reply.iter_lines():
            if '"delta"' in line:
                break
    assert eventually(lambda: idle(serving))
    assert eventually(lambda: gone() == before + 3)
    label = f'adapter="{SV}",endpoint="{PATH}",language="sv",status="499",version="v1.1"'
    assert serving.counts()[f"oneseek_requests_total{{{label}}}"] >= 1


@pytest.fixture(scope="module")
def narrow(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """Two rows and a queue of two."""
    limits = Settings(port=0, max_num_seqs=2, max_queue=2, log_level="critical", drain_seconds=1)
    with served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving:
        yield serving


def test_places_are_held_for_all_or_for_none(narrow: Serving) -> None:
    assert refuse(narrow.http, models=FIVE) == (429, None, "queue_full")
    assert not places(narrow).live
    assert len(ask(narrow.http, models=FIVE[:4])["voices"]) == 4
    assert eventually(lambda: not places(narrow).live)


def test_each_voice_takes_a_place_of_the_queue(narrow: Serving) -> None:
    seen: list[int] = []
    body = FRAGA | {"models": FIVE[:3], "stream": True, "max_tokens": 100}
    with narrow.http.stream("POST", PATH, json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        seen.append(places(narrow).live)
        assert refuse(narrow.http, models=["base", "sv"])[0] == 429
        for _ in lines:
            pass
    assert seen == [3]
    assert eventually(lambda: not places(narrow).live)


def test_a_voice_that_fails_is_reported_and_the_others_stand(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path, tmp_path: Path
) -> None:
    broken = replace(
        voices["en"], alias="broken", version="v1", language=None, digest="sha256:" + "c" * 64, path=tmp_path
    )
    known_ones = voices | {"broken": broken}
    settings = Settings(port=0, max_num_seqs=4, log_level="critical", drain_seconds=1)
    with served(make_app(tiny_base, known_ones, graphs, settings), settings, known_ones) as serving:
        answer = ask(serving.http, models=["broken", "sv", "en"])
        failed, *others = answer["voices"]
        assert (failed["status"], failed["text"], failed["receipt"]) == ("failed", None, None)
        assert failed["error"]["code"] == "adapter_unavailable"
        assert [voice["status"] for voice in others] == ["answered", "answered"]
        assert all(0 not in pair["voices"] for pair in answer["consensus"]["pairs"])
        found = events(serving.http.post(PATH, json=FRAGA | {"models": ["broken", "sv"], "stream": True}))
        ends = {event["voice"]: event["status"] for event in found if event["type"] == "voice"}
        assert ends == {0: "failed", 1: "answered"}
        for stream in (False, True):
            reply = serving.http.post(PATH, json=FRAGA | {"models": ["broken"], "stream": stream})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "adapter_unavailable")
        label = f'adapter="broken",endpoint="{PATH}",language="sv",status="503",version="v1"'
        assert serving.counts()[f"oneseek_requests_total{{{label}}}"] == 4
        assert idle(serving)


def test_an_engine_that_dies_ends_its_voices(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    settings = Settings(port=0, max_num_seqs=4, log_level="critical", drain_seconds=1)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        body = FRAGA | {"max_tokens": 200, "stream": True}
        with serving.http.stream("POST", PATH, json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            serving.close_engine()
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        failed = [event for event in rest if event["type"] == "voice"]
        assert {event["error"]["code"] for event in failed} == {"engine_dead"}
        assert rest[-1]["consensus"]["medoid"] is None
        assert refuse(serving.http)[::2] == (503, "engine_dead")


def test_time_that_runs_out_ends_every_voice(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    """One row, so that the last of five voices never ends in time."""
    settings = Settings(port=0, max_num_seqs=1, request_timeout=0.3, log_level="critical", drain_seconds=1)
    body = {"question": "Vem är du?", "max_tokens": 240, "ignore_eos": True, "models": FIVE}
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        reply = serving.http.post(PATH, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        streamed = serving.http.post(PATH, json=body | {"stream": True})
        assert events(streamed)[-1]["error"]["code"] == "timeout"
        assert eventually(lambda: idle(serving))
        counts = serving.counts()
        mine = {name: count for name, count in counts.items() if PATH in name and "requests_total" in name}
        assert sum(mine.values()) == 2 * len(FIVE)
        late = sum(count for name, count in mine.items() if 'status="504"' in name)
        assert late == counts['oneseek_cancelled_total{reason="timeout"}'] >= 2


def test_a_client_that_leaves_before_the_answer_ends_every_voice(narrow: Serving) -> None:
    def gone() -> float:
        return narrow.counts().get('oneseek_cancelled_total{reason="disconnect"}', 0)

    before, body = gone(), FRAGA | {"max_tokens": 240, "models": FIVE[:4]}
    with httpx.Client(base_url=narrow.url, timeout=0.1) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post(PATH, json=body)
    assert eventually(lambda: idle(narrow))
    assert eventually(lambda: gone() > before)


def test_a_voice_that_fails_at_once_keeps_no_adapter_in_its_slot(
    tmp_path: Path,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines: list[Bad] = []

    def make(*args: Any) -> Bad:
        engines.append(Bad(ENGINES["embedded"](*args)))
        return engines[0]

    monkeypatch.setitem(ENGINES, "bad", make)
    monkeypatch.setattr(residency, "PATIENCE", 2.0)
    place = Place.make(tmp_path, tiny_base, make_adapter)
    for number, name in ((1, "one-v1"), (2, "other-v1")):
        shutil.copytree(place.more(number), place.lora_adapters / name)
    with administered(place, place.settings(), engine="bad", slots=1) as serving:
        engines[0].broken.add(serving.served.resolve("one").digest)
        answer = ask(serving.http, models=["base", "one"])
        assert answer["voices"][1]["error"]["code"] == "engine_error"
        assert ask(serving.http, models=["other"])["voices"][0]["status"] == "answered"
