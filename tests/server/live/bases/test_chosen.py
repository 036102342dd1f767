"""Which adapter a server of its own settings chooses: the default that introduces itself, and topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.random_model import DecoderShape, write_adapter, write_model
from server.__main__ import main
from server.asgi.compose import Narrator, compose
from server.config.settings import RoutingOptions, Settings
from tests.server.http_server import Made, Serving, served

SHAPE = DecoderShape(32, 2, 2, 1, 16, 64, 300, 256)
EN, SV, KITCHEN = "voice-en", "voice-sv", "kitchen"
EXAMPLES = (
    *("how do I cook rice", "a recipe for tomato soup", "how long do I bake bread"),
    *("is raw egg safe", "how do I thicken a sauce", "what can I cook with leftover chicken"),
)
DANISH = "Hvad synes du om mit forslag til ferien?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation of a base and three adapters, one of them with example questions."""
    root = tmp_path_factory.mktemp("chosen")
    write_model(root / "models" / "mistral-7b-instruct", SHAPE, 0)
    told: dict[str, dict[str, object]] = {
        EN: {"language": "en"},
        SV: {"language": "sv"},
        KITCHEN: {"language": "en", "examples": EXAMPLES},
    }
    for seed, (alias, manifest) in enumerate(told.items(), 1):
        made = root / "lora_adapters" / alias
        write_adapter(made, SHAPE, 4, ("q_proj", "v_proj"), seed)
        made.joinpath("oneseek.json").write_text(json.dumps({"alias": alias, "version": "v1"} | manifest))
    return root


def settings(folder: Path, **given: Any) -> Settings:
    values: dict[str, Any] = {
        "home": folder / "home",
        "port": 0,
        "threads": 1,
        "max_num_seqs": 4,
        "kv_cache_memory": 4 * 1024 * 1024,
        "log_level": "warning",
        "drain_seconds": 2,
        "follow_registry": 0.0,
    }
    return Settings(**(values | given))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    own = settings(folder)
    app, services = compose(own, Narrator(StringIO()), {}, folder)
    runtime = services[0].runtime
    with served(Made(app, runtime.engine, runtime.served), own, {}) as serving:
        yield serving


def ask(server: Serving, *turns: str, system: str | None = None, **headers: str) -> httpx.Response:
    """A chat whose user says `turns`."""
    said = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        said += [{"role": "user", "content": turn}, {"role": "assistant", "content": "."}]
    body = {"messages": said[:-1], "max_tokens": 2, "temperature": 0, "receipt": True}
    reply = server.http.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


def decided(reply: httpx.Response) -> tuple[str, str]:
    """The alias that answered and the reason, in header and receipt alike."""
    alias = reply.headers["x-oneseek-adapter"].partition("@")[0]
    reason = reply.headers["x-oneseek-route"].partition(";")[0]
    assert reply.json()["receipt"]["route"]["reason"] == reason
    return alias, reason


@pytest.mark.parametrize("text", ["ok", "👍", "42", "Haha!", "https://example.com/a"])
def test_a_first_message_without_evidence_gets_the_english_adapter(server: Serving, text: str) -> None:
    assert decided(ask(server, text)) == (EN, "default")


@pytest.mark.parametrize(
    ("turns", "hints", "chosen"),
    [
        (("Vem är du, och vad kan du?", "ok"), {}, (SV, "conversation")),
        (("ok",), {"system": "Svara alltid på svenska."}, (SV, "system")),
        (("ok",), {"Accept-Language": "sv-SE,sv;q=0.9"}, (SV, "accept-language")),
        (("ok",), {"Accept-Language": "da-DK,da;q=0.9"}, ("base", "default")),
        (("ok",), {"system": "Svar altid på dansk. Du er en hjælpsom assistent."}, ("base", "default")),
        ((DANISH,), {}, ("base", "no-adapter")),
        ((DANISH, "ok"), {}, ("base", "no-adapter")),
    ],
)
def test_any_evidence_goes_before_it(
    server: Serving, turns: tuple[str, ...], hints: dict[str, str], chosen: tuple[str, str]
) -> None:
    assert decided(ask(server, *turns, **hints)) == chosen


def test_a_question_like_the_examples_goes_to_their_adapter(server: Serving, folder: Path) -> None:
    question = "what can I use instead of butter in my pancakes"
    assert decided(ask(server, question)) == (KITCHEN, "topic")
    assert decided(ask(server, question, "and then?")) == (KITCHEN, "topic")
    assert decided(ask(server, "who are you, and what is the weather like")) == (EN, "language")
    assert decided(ask(server, "vad kan jag ha i stället för smör i mina pannkakor")) == (SV, "language")
    assert decided(ask(server, question, **{"X-OneSeek-Adapter": EN})) == (EN, "header")


@pytest.mark.parametrize(
    ("text", "adapter", "reason"),
    [("what can I use instead of butter in my pancakes", KITCHEN, "topic"), ("ok", EN, "default")],
)
def test_the_command_line_explains_the_same(
    folder: Path,
    text: str,
    adapter: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    assert main(["route", text, "--json", "--home", str(folder / "home")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert ([one["name"] for one in shown["adapters"]], shown["reason"]) == ([adapter], reason)
    assert (shown["topics"][KITCHEN] > 0.9) is (reason == "topic")


@pytest.mark.parametrize(("default", "alias"), [("base", "base"), (SV, SV)])
def test_a_configured_default_goes_before_it(folder: Path, default: str, alias: str) -> None:
    own = settings(folder, routing=RoutingOptions(default=default))
    app, services = compose(own, Narrator(StringIO()), {}, folder)
    runtime = services[0].runtime
    with served(Made(app, runtime.engine, runtime.served), own, {}) as serving:
        assert decided(ask(serving, "ok")) == (alias, "default")
