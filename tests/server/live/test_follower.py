"""A running server follows the registry: what another process promotes answers, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.config.settings import Settings
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.live.catalogue import open_catalogue, provenance
from server.live.follow_options import FollowOptions
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer
from tests.server.http_server import Made, Serving, one_base_app, served

ROOT = Path(__file__).resolve().parents[3]
SWEDISH = "Kan du hjälpa mig med det här, tack?"


@pytest.fixture
def installation(tmp_path: Path, tiny_base: Path) -> Path:
    shutil.copytree(tiny_base, tmp_path / "root" / "models" / "mistral-7b-instruct")
    return tmp_path


def oneseek(installation: Path, *arguments: str) -> str:
    """A verb in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    done = subprocess.run(
        [sys.executable, "-m", "server", "adapters", *arguments],
        cwd=installation / "root",
        env={**kept, "ONESEEK_HOME": str(installation / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def voices(make_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {"first": make_adapter("watch-1", 11), "second": make_adapter("watch-2", 12, rank=8)}


@pytest.fixture
def serving(installation: Path, voices: dict[str, Path]) -> Iterator[Serving]:
    """A server whose registry holds v1.0 of `zero`, Swedish."""
    named = ("--alias", "zero", "--language", "sv")
    oneseek(installation, "add", str(voices["first"]), "--version", "v1.0", *named)
    home = installation / "home"
    settings = Settings(home=home, port=0, log_level="warning", drain_seconds=2, require_provenance=True)
    catalogue = open_catalogue(settings, installation / "root")
    tokenizer, metrics = Tokenizer.load(catalogue.base.path), Metrics()
    steps = metrics.steps("tiny")
    options = EmbeddedOptions(
        graphs=installation / "graphs",
        max_num_seqs=4,
        max_num_batched_tokens=64,
        max_queue=16,
        kv_tokens=4096,
        threads=1,
    )
    adapters = catalogue.served
    engine = embedded_engine(catalogue.base.path, adapters.base_digest, tokenizer, options, observer=steps)
    follow = FollowOptions(
        home=settings.home,
        base=catalogue.base,
        seconds=0.05,
        provenance=lambda: provenance(settings),
        router=catalogue.make_router,
    )
    app = one_base_app(
        settings, engine, adapters, catalogue.router, tokenizer, "tiny", metrics, follow=follow
    )
    with served(Made(app, engine, adapters), settings, {}) as serving:
        yield serving


def ask(client: httpx.Client, model: str = "zero", text: str = SWEDISH) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4}
    return client.post("/v1/chat/completions", json=body)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_promotion_elsewhere_answers_here_and_no_request_is_dropped(
    serving: Serving, installation: Path, voices: dict[str, Path]
) -> None:
    answers: list[tuple[int, str, str]] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=serving.url, timeout=60) as client:
            while not stop.is_set():
                answer = ask(client)
                told = answer.headers
                answers.append(
                    (answer.status_code, told["X-OneSeek-Adapter"], told["X-OneSeek-Adapter-Digest"])
                )

    askers = [threading.Thread(target=keep_asking) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        old = serving.served.resolve("zero").digest
        oneseek(installation, "add", str(voices["second"]), "--alias", "zero", "--language", "sv")
        until(lambda: serving.served.is_adapter("zero@v1.1"))
        assert answers[-1][1] == "zero@v1.0", "what is added waits to be promoted"
        oneseek(installation, "promote", "zero@v1.1")
        until(lambda: answers[-1][1] == "zero@v1.1")
        new = serving.served.resolve("zero").digest
        until(lambda: list(serving.engine.state().resident) == [new])
        oneseek(installation, "rollback", "zero")
        until(lambda: answers[-1][1] == "zero@v1.0")
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert {status for status, _, _ in answers} == {200}
    assert {(name, digest) for _, name, digest in answers} == {("zero@v1.0", old), ("zero@v1.1", new)}


def test_a_new_language_is_routed_and_a_retired_version_is_gone(
    serving: Serving, installation: Path, voices: dict[str, Path]
) -> None:
    english = "Could you help me with this, please?"
    assert ask(serving.http, "oneseek", english).headers["X-OneSeek-Adapter"] == "base"
    oneseek(
        installation, "add", str(voices["second"]), "--alias", "one", "--version", "v1", "--language", "en"
    )
    until(lambda: ask(serving.http, "oneseek", english).headers["X-OneSeek-Adapter"] == "one@v1")
    assert ask(serving.http, "oneseek").headers["X-OneSeek-Adapter"] == "zero@v1.0"
    oneseek(installation, "retire", "one@v1", "--delete")
    until(lambda: ask(serving.http, "one").status_code == 404)
    assert ask(serving.http, "oneseek", english).headers["X-OneSeek-Adapter"] == "base"
    assert ask(serving.http, "zero").status_code == 200


def test_what_cannot_be_followed_leaves_the_server_as_it_was(
    serving: Serving, installation: Path, voices: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    broken = installation / "home" / "registry" / "bad" / "v1"
    shutil.copytree(voices["second"], broken)
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    until(lambda: "adapter_model.safetensors" in caplog.text)
    state = installation / "home" / "registry" / "active.json"
    state.write_text("{", encoding="utf-8")
    until(lambda: "active.json" in caplog.text)
    time.sleep(0.3)
    assert len([one for one in caplog.records if "active.json" in one.getMessage()]) == 1, "said once"
    assert ask(serving.http).headers["X-OneSeek-Adapter"] == "zero@v1.0"
    state.unlink()
    shutil.rmtree(broken.parent)
    oneseek(installation, "add", str(voices["second"]), "--alias", "zero")
    oneseek(installation, "promote", "zero@v1.1")
    until(lambda: ask(serving.http).headers["X-OneSeek-Adapter"] == "zero@v1.1")


def test_what_the_ledger_does_not_know_waits_for_it(
    serving: Serving, installation: Path, voices: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    by_hand = installation / "home" / "registry" / "other" / "v1"
    shutil.copytree(voices["second"], by_hand)
    until(lambda: "other@v1 in" in caplog.text)
    assert "require_provenance" in caplog.text
    assert ask(serving.http, "other").status_code == 404
    oneseek(installation, "add", str(by_hand), "--alias", "other", "--version", "v1")
    until(lambda: ask(serving.http, "other").status_code == 200)
