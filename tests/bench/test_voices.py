"""The benchmark of several voices against a real server, with few tokens."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters.lora.manifest import read_manifest
from bench.servers import Server
from bench.voices import LONGEST_QUESTION, ask, command_line, measure, questions
from server.config.settings import Settings
from tests.server.http_server import EN, SV, make_app, served


@pytest.fixture
def server(tiny_base: Path, make_adapter: Callable[..., Path], tmp_path: Path) -> Iterator[Server]:
    adapters = {
        "en": read_manifest(make_adapter("en", 1), alias=EN, version="v1.1", language="en"),
        "sv": read_manifest(make_adapter("sv-old", 3), alias=SV, version="v1.1", language="sv"),
    }
    settings = Settings(port=0, max_num_seqs=8, log_level="warning", drain_seconds=1)
    with served(make_app(tiny_base, adapters, tmp_path, settings), settings, adapters) as serving:
        yield Server(serving.url, 0)


def test_a_round_compares_together_with_alone(server: Server) -> None:
    short = (f"{number}: hej" for number in itertools.count())
    for turn in (0, 1):
        found = measure(server, short, ["base", "sv", "en"], 4, turn)
        assert found["one after the other"] >= found["slowest alone"] > 0
        ratio = found["together"] / found["one after the other"]
        assert found["together / one after the other"] == pytest.approx(ratio)


def test_an_answer_that_is_not_whole_is_no_figure(server: Server) -> None:
    with pytest.raises(RuntimeError):
        ask(server, "hej " * (LONGEST_QUESTION // 2), ["base"], 4)


def test_no_question_comes_twice() -> None:
    first = list(itertools.islice(questions(), 500))
    assert len({text[:4] for text in first}) > 400
    assert len(set(first)) == 500


def test_the_shipped_base_has_five_voices(tmp_path: Path) -> None:
    options = argparse.Namespace(
        preset="mini", quantize="int8", server_options=["--threads", "1"], work=tmp_path
    )
    command, names = command_line(options, 1)
    assert len(set(names)) == 5
    assert command[-2:] == ["--threads", "1"]
