"""Which weights answer: versions that move, adapters brought in on demand, adapters that cannot be served."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.config.settings import Settings
from tests.server.http_server import EN, SV, Serving, make_app, served

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Vem är du? Jag är en liten modell för prov."}],
    "max_tokens": 16,
    "temperature": 0,
    "ignore_eos": True,
}


@pytest.fixture
def fresh(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=8, log_level="warning", drain_seconds=1)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        yield serving


def say(serving: Serving, model: str) -> tuple[str, str]:
    """Full name and text of an answer."""
    reply = serving.http.post(CHAT, json=ASK | {"model": model})
    assert reply.status_code == 200, reply.text
    return reply.headers["x-oneseek-adapter"], reply.json()["choices"][0]["message"]["content"]


def test_a_moved_alias_never_answers_with_the_old_version(fresh: Serving) -> None:
    texts = dict(say(fresh, f"{SV}@{version}") for version in ("v1.0", "v1.1"))
    assert len(set(texts.values())) == 2
    for version in ("v1.0", "v1.1", "v1.0"):
        fresh.served.activate(SV, version)
        for _ in range(2):
            assert say(fresh, SV) == (f"{SV}@{version}", texts[f"{SV}@{version}"])


def test_an_alias_may_move_under_load(fresh: Serving) -> None:
    texts = dict(say(fresh, f"{SV}@{version}") for version in ("v1.0", "v1.1"))
    stop = threading.Event()

    def move() -> None:
        turn = 0
        while not stop.wait(0.005):
            turn += 1
            fresh.served.activate(SV, ("v1.0", "v1.1")[turn % 2])

    mover = threading.Thread(target=move)
    mover.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(partial(say, fresh), [SV] * 80))
    finally:
        stop.set()
        mover.join()
    assert set(answers) == set(texts.items()), "each answer is of the version that its receipt names"


def test_a_version_is_brought_in_once_however_many_ask(fresh: Serving) -> None:
    assert fresh.adapters["sv-old"].digest not in fresh.engine.state().resident
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(partial(say, fresh), [f"{SV}@v1.0"] * 16))
    assert len(answers) == 1
    assert fresh.counts()[f'oneseek_adapter_loads_total{{adapter="{SV}",outcome="ok"}}'] == 2


def test_a_blend_of_one_is_that_one(fresh: Serving) -> None:
    def text(header: str) -> str:
        reply = fresh.http.post(CHAT, json=ASK, headers={"X-OneSeek-Adapter": header})
        return reply.json()["choices"][0]["message"]["content"]

    assert text("sv=1.0") == text("sv")
    assert text("sv=0.5") != text("sv")
    assert text("sv=0.4,en=0.6") == text("en=0.6,sv=0.4")


def test_an_adapter_that_cannot_be_served_says_so_and_harms_nobody(
    tiny_base: Path,
    voices: dict[str, Adapter],
    graphs: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make_adapter: Callable[..., Path],
) -> None:
    folder = tmp_path / "secret-place" / "broken"
    shutil.copytree(make_adapter("en", 1), folder)
    broken = read_manifest(folder, alias="broken", version="v1")
    broken = replace(broken, digest="sha256:" + "c" * 64)
    (folder / "adapter_model.safetensors").write_bytes(b"not weights")
    settings = Settings(port=0, max_num_seqs=2, log_level="critical", drain_seconds=1)
    known = voices | {"broken": broken}
    with served(make_app(tiny_base, known, graphs, settings), settings, known) as serving:
        reply = serving.http.post(CHAT, json=ASK | {"model": "broken"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "adapter_unavailable")
        assert reply.headers["x-should-retry"] == "false"
        assert "adapter_model.safetensors" in reply.json()["error"]["message"]
        assert "secret-place" not in reply.text
        assert say(serving, EN)[0] == f"{EN}@v1.1"
        assert serving.http.get("/ready").status_code == 200
        assert "secret-place" not in serving.http.get("/health").text
        counts = serving.counts()
        assert counts['oneseek_adapter_loads_total{adapter="broken",outcome="refused"}'] == 2
        assert counts['oneseek_rejected_total{reason="adapter_unavailable"}'] == 1
    assert any("broken@v1" in one.getMessage() for one in caplog.records if one.levelname == "WARNING")
