"""Several voices whose bases are loaded on demand: each is waited for, and a missing one fails alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.config.settings import Settings
from tests.server.api.endpoints.voices.multi_model import PATH, events
from tests.server.two_bases import EN, NORTH, SOUTH, SV, TwoBases, TwoServing, two_bases_served

VOICES = [NORTH, SOUTH, f"{NORTH}:{SV}", f"{SOUTH}:{EN}"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBases:
    return TwoBases.make(tmp_path_factory.mktemp("demanded"))


def demanded(two: TwoBases, home: Path, *names: str, **given: Any) -> Settings:
    """Settings with these bases on demand."""
    settings = two.settings(home)
    options = {name: replace(one, on_demand=name in names) for name, one in settings.bases.items()}
    return replace(settings, bases=options, **given)


def question(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post(PATH, json={"question": "Vem är du?", "max_tokens": 6, "temperature": 0} | fields)


@contextmanager
def broken(folder: Path) -> Generator[None]:
    """The base's folder without its weights and config."""
    moved = [*folder.glob("*.safetensors"), folder / "config.json"]
    for path in moved:
        path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        for path in moved:
            path.with_suffix(".away").rename(path)


def texts(server: TwoServing) -> list[str]:
    answered = question(server.serving.http, models=VOICES)
    assert answered.status_code == 200, answered.text
    voices = answered.json()["voices"]
    assert [voice["receipt"]["base"] for voice in voices] == [NORTH, SOUTH, NORTH, SOUTH]
    return [voice["text"] for voice in voices]


@pytest.mark.parametrize("given", [{"max_loaded_bases": 1}, {"base_idle_seconds": 0}])
def test_bases_that_do_not_stay_together_answer_one_after_the_other(
    two: TwoBases, tmp_path: Path, given: dict[str, Any]
) -> None:
    with two_bases_served(two.settings(tmp_path / "always"), tmp_path) as server:
        expected = texts(server)
    with two_bases_served(demanded(two, tmp_path / "home", NORTH, SOUTH, **given), tmp_path) as server:
        assert texts(server) == expected
        assert texts(server) == expected
        usual = question(server.serving.http).json()["voices"]
        assert [voice["status"] for voice in usual] == ["answered"] * 3
        streamed = events(question(server.serving.http, models=VOICES, stream=True))
        ended = [event for event in streamed if event["type"] == "voice"]
        assert sorted(event["voice"] for event in ended) == [0, 1, 2, 3]
        assert {event["status"] for event in ended} == {"answered"}
        assert server.serving.http.get("/health").json()["queue"] == {
            "running": 0,
            "waiting": 0,
            "limit": 256,
        }


def test_a_base_that_does_not_load_fails_alone(two: TwoBases, tmp_path: Path) -> None:
    settings = demanded(two, tmp_path / "home", NORTH)
    with two_bases_served(settings, tmp_path) as server, broken(two.bases[NORTH]):
        http = server.serving.http
        voices = question(http, models=VOICES).json()["voices"]
        assert [voice["status"] for voice in voices] == ["failed", "answered", "failed", "answered"]
        assert {voice["error"]["code"] for voice in voices[::2]} == {"base_unavailable"}
        alone = question(http, models=[NORTH, SV])
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "base_unavailable")
        assert int(alone.headers["retry-after"]) >= 1


def test_a_base_that_comes_too_late_fails_alone(two: TwoBases, tmp_path: Path) -> None:
    settings = demanded(two, tmp_path / "home", NORTH, base_wait_seconds=0)
    with two_bases_served(settings, tmp_path) as server:
        voices = question(server.serving.http, models=[SOUTH, NORTH]).json()["voices"]
        assert [voice["status"] for voice in voices] == ["answered", "failed"]
        assert voices[1]["error"]["code"] == "base_not_loaded"
