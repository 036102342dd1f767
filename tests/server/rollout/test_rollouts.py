"""Canaries and shadows on a running server: who answers, what is measured, and what ends by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.ledger import Ledger
from server.config.settings import RolloutOptions
from tests.server.rolling import ALIAS, NEW, OLD, Rolling, fill, rolling, until

ROOT = Path(__file__).resolve().parents[3]
QUICK = RolloutOptions(min_requests=8)
Start = Callable[..., Rolling]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Iterator[Rolling]:
    """A server that never ends anything by itself."""
    folder = tmp_path_factory.mktemp("steady")
    registry = fill(folder / "home", folder)
    options = RolloutOptions(automatic=False)
    with rolling(folder / "home", folder, graphs, registry, options) as found:
        yield found


@pytest.fixture
def start(tmp_path: Path, graphs: Path) -> Iterator[Start]:
    """Starts a server of its own."""
    registry = fill(tmp_path / "home", tmp_path)
    running: list[Any] = []

    def begin(**limits: int) -> Rolling:
        running.append(rolling(tmp_path / "home", tmp_path, graphs, registry, QUICK, **limits))
        found: Rolling = running[-1].__enter__()
        return found

    yield begin
    for one in running:
        one.__exit__(None, None, None)


def chat(client: httpx.Client, first: str, *further: dict[str, str], **fields: Any) -> httpx.Response:
    messages = [{"role": "user", "content": first}, *further]
    body = {"model": ALIAS, "messages": messages, "max_tokens": 2, **fields}
    return client.post("/v1/chat/completions", json=body)


def many(rolled: Rolling, count: int, **fields: Any) -> list[httpx.Response]:
    """The answers to as many conversations."""
    with httpx.Client(base_url=rolled.serving.url, timeout=60) as client, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(chat, client, f"Fråga nummer {number}", **fields) for number in range(count)]
        return [answer.result() for answer in asked]


def many_until_rolled_back(rolled: Rolling, count: int) -> list[httpx.Response]:
    """The answers to as many conversations at a time, until the trial has ended."""
    answers: list[httpx.Response] = []
    while rolled.splits():
        assert len(answers) < 100 * count
        answers += many(rolled, count)
    return answers


def by(answer: httpx.Response) -> str:
    """Who answered, told alike by header, body and fingerprint."""
    assert answer.status_code == 200, answer.text
    name, digest = answer.headers["X-OneSeek-Adapter"], answer.headers["X-OneSeek-Adapter-Digest"]
    assert answer.json()["model"] == name
    assert answer.json()["system_fingerprint"].endswith(digest.removeprefix("sha256:")[:12])
    return name


@contextmanager
def another_server(home: Path, folder: Path) -> Generator[str]:
    """A server of the same registry in a process of its own; its address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    flags = (
        "--port",
        "0",
        "--follow-registry",
        "0.1",
        "--threads",
        "1",
        "--routing-languages",
        f"sv={ALIAS}",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", *flags],
        cwd=folder,
        env={**kept, "ONESEEK_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        raise AssertionError(said)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def divide(rolled: Rolling, percent: float) -> None:
    since = rolled.registry.canary(ALIAS, {"v1.1": 100 - percent, "v1.2": percent}).after.split
    until(lambda: rolled.splits().get(ALIAS) == since)


def test_conversations_are_divided_and_stay_where_they_are(steady: Rolling) -> None:
    divide(steady, 10)
    answers = {number: by(answer) for number, answer in enumerate(many(steady, 200))}
    counts = Counter(answers.values())
    assert 8 <= counts[NEW] <= 34, "200 times 10%, within 3 standard deviations"
    assert counts[OLD] == 200 - counts[NEW]
    canary = [number for number, name in answers.items() if name == NEW]
    # Later turns of a conversation, and the same one when the share grows.
    later = ({"role": "assistant", "content": "Ja."}, {"role": "user", "content": "Och sedan?"})
    client = steady.serving.http
    for number in (*canary[:4], *(set(range(8)) - set(canary))):
        assert by(chat(client, f"Fråga nummer {number}", *later)) == answers[number]
    divide(steady, 40)
    assert {by(chat(client, f"Fråga nummer {number}")) for number in canary} == {NEW}
    grown = Counter(map(by, many(steady, 100)))
    assert 25 <= grown[NEW] <= 55
    told = {name: chat(client, "Fråga nummer 1", model=name).headers for name in (OLD, NEW)}
    assert {name: headers["X-OneSeek-Adapter"] for name, headers in told.items()} == {OLD: OLD, NEW: NEW}
    steady.registry.settle(ALIAS)
    until(lambda: not steady.splits())
    assert Counter(map(by, many(steady, 20))) == {OLD: 20}


def test_every_endpoint_that_has_conversations_divides_and_keeps_them(steady: Rolling) -> None:
    divide(steady, 50)
    client = steady.serving.http
    system = {"role": "system", "content": "Svara kort."}

    def chats(text: str, turns: int) -> httpx.Response:
        later = [{"role": "assistant", "content": "Ja."}, {"role": "user", "content": "Mer?"}] * turns
        messages = [system, {"role": "user", "content": text}, *later]
        return client.post(
            "/v1/chat/completions", json={"model": ALIAS, "messages": messages, "max_tokens": 1}
        )

    def responses(text: str, turns: int) -> httpx.Response:
        later = [{"role": "assistant", "content": "Ja."}, {"role": "user", "content": "Mer?"}] * turns
        body: dict[str, Any] = {"model": ALIAS, "instructions": "Svara kort.", "max_output_tokens": 1}
        body["input"] = [{"role": "user", "content": text}, *later]
        return client.post("/v1/responses", json=body)

    def completions(text: str, turns: int) -> httpx.Response:
        prompt = f"{text} ".ljust(512, ".") + "Och sedan. " * turns
        return client.post("/v1/completions", json={"model": ALIAS, "prompt": prompt, "max_tokens": 1})

    def streamed(text: str, turns: int) -> httpx.Response:
        messages = [{"role": "user", "content": text}] * (1 + turns)
        body = {"model": ALIAS, "messages": messages, "max_tokens": 1, "stream": True}
        return client.post("/v1/chat/completions", json=body)

    for ask in (chats, responses, completions, streamed):
        seen: Counter[str] = Counter()
        for number in range(12):
            told = {ask(f"Samtal {number}", turns).headers["X-OneSeek-Adapter"] for turns in (0, 2)}
            assert len(told) == 1, ask.__name__
            seen.update(told)
        assert set(seen) == {OLD, NEW}, ask.__name__
    # The existing backends' endpoint names no adapter: the language leads to the alias.
    asked = [f"Hej, vad heter du och hur mår du i dag, nummer {number}?" for number in range(12)]
    told = [client.post("/inference/oneseek", json={"text": text, "max_tokens": 1}) for text in asked]
    assert {answer.json()["model"] for answer in told} == {OLD, NEW}
    assert [client.post("/inference/oneseek", json={"text": text}).json()["model"] for text in asked] == [
        answer.json()["model"] for answer in told
    ]


def test_who_asks_tells_equal_openings_apart(steady: Rolling) -> None:
    divide(steady, 50)
    client = steady.serving.http
    for field in ("user", "safety_identifier", "prompt_cache_key"):
        names = {by(chat(client, "Hej!", **{field: f"person {number}"})) for number in range(12)}
        assert names == {OLD, NEW}, field
    assert len({by(chat(client, "Hej!", metadata={"n": str(number)})) for number in range(6)}) == 1


def test_a_canary_that_the_engine_refuses_gets_no_share(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rolled = start()
    rolled.bad.refused.add(rolled.digest(NEW))
    rolled.registry.canary(ALIAS, {"v1.1": 50, "v1.2": 50})
    until(lambda: any(NEW in one.getMessage() for one in caplog.records if one.levelname == "ERROR"))
    assert Counter(map(by, many(rolled, 20))) == {OLD: 20}
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1, "one line"
    assert rolled.serving.counts()[rollouts("refused")] == 1


def rollouts(outcome: str) -> str:
    return f'oneseek_rollouts_total{{adapter="{ALIAS}",outcome="{outcome}",version="v1.2"}}'


def health(rolled: Rolling) -> dict[str, Any]:
    """The last of what /health tells of rollouts."""
    found: dict[str, Any] = rolled.serving.http.get("/health").json()["rollouts"][-1]
    return found


def test_a_canary_that_cannot_be_loaded_any_more_is_rolled_back_and_nothing_is_dropped(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rolled = start()
    divide(rolled, 50)
    assert {by(answer) for answer in many(rolled, 10)} == {OLD, NEW}
    rolled.bad.refused.add(rolled.digest(NEW))
    rolled.unload(NEW)
    asked = 0
    while rolled.splits():
        assert {by(answer) for answer in many(rolled, 10)} == {OLD}
        asked += 10
        assert asked < 400
    assert rolled.serving.counts()[rollouts("rolled_back")] == 1
    until(lambda: health(rolled)["written"])
    told = health(rolled)
    assert (told["version"], told["kind"], told["state"]) == ("v1.2", "canary", "ended")
    assert "error_margin" in told["reason"]
    assert any(one.args[:3] == (NEW, OLD, "canary") for one in caplog.records if isinstance(one.args, tuple))
    assert rolled.registry.listing().pointers.state(ALIAS).split is None
    entry = list(Ledger.open(rolled.home / "ledger").entries())[-1].record
    assert (entry.action, entry.subject) == ("settle", ALIAS)
    assert entry.metrics["errors"] >= 8
    assert NEW in entry.details["reason"]
    # Set anew, it is on trial anew.
    rolled.bad.refused.clear()
    divide(rolled, 50)
    assert {by(answer) for answer in many(rolled, 10)} == {OLD, NEW}


def test_a_canary_whose_answers_fail_is_rolled_back(start: Start) -> None:
    rolled = start()
    rolled.bad.broken.add(rolled.digest(NEW))
    divide(rolled, 30)
    answers = many_until_rolled_back(rolled, 10)
    assert 1 <= sum(answer.status_code == 500 for answer in answers) < len(answers)
    assert {by(answer) for answer in many(rolled, 10)} == {OLD}


def test_a_slow_canary_is_rolled_back_and_no_answer_is_lost(start: Start) -> None:
    rolled = start()
    rolled.bad.slow[rolled.digest(NEW)] = 0.2
    divide(rolled, 50)
    assert {by(answer) for answer in many_until_rolled_back(rolled, 20)} <= {OLD, NEW}
    assert health(rolled)["reason"]
    assert health(rolled)["figures"]["first_ms"] > 200


def test_a_rollback_holds_where_the_registry_cannot_be_written(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    rolled = start()
    rolled.bad.broken.add(rolled.digest(NEW))
    divide(rolled, 50)
    key = rolled.home / "ledger" / "key.pem"
    key.rename(key.with_suffix(".away"))
    many_until_rolled_back(rolled, 10)
    until(lambda: "could not be written to the registry" in caplog.text)
    assert rolled.serving.counts()[rollouts("unwritten")] == 1
    assert rolled.registry.listing().pointers.state(ALIAS).split is not None, "the ledger comes first"
    # What is still on disk is not taken again, also where the registry changes otherwise.
    (rolled.home / "registry" / "active.json").touch()
    assert {by(answer) for answer in many(rolled, 20)} == {OLD}
    assert not rolled.splits()
    assert health(rolled)["written"] is False


def test_a_shadow_changes_no_answer_and_is_measured_apart(start: Start) -> None:
    rolled = start()
    plain = [answer.json()["choices"] for answer in many(rolled, 10, temperature=0.0, max_tokens=6)]
    before = rolled.serving.counts()
    rolled.registry.shadow(NEW, 100)
    until(lambda: rolled.serving.served.snapshot.shadows)
    answers = many(rolled, 10, temperature=0.0, max_tokens=6)
    assert [answer.json()["choices"] for answer in answers] == plain
    assert {by(answer) for answer in answers} == {OLD}
    answered = f'oneseek_shadow_requests_total{{adapter="{ALIAS}",outcome="ok",version="v1.2"}}'
    until(lambda: rolled.serving.counts().get(answered, 0) >= 1)
    counts = rolled.serving.counts()
    version = f'adapter="{ALIAS}",version="v1.2"'
    assert counts[f"oneseek_shadow_time_to_first_token_seconds_count{{{version}}}"] == counts[answered]
    assert not [name for name in counts if 'version="v1.2"' in name and "oneseek_tokens_total" in name]
    tokens = f'oneseek_tokens_total{{adapter="{ALIAS}",kind="completion",version="v1.1"}}'
    assert counts[tokens] == 2 * before[tokens]
    shadows = [request for request in rolled.bad.requests if request.share == rolled.digest(NEW)]
    originals = {request.prompt: request for request in rolled.bad.requests if request not in shadows}
    asked = [request for request in shadows if request.prompt in originals]
    assert asked
    assert all(originals[request.prompt].sampling == request.sampling for request in asked)


def test_a_shadow_gives_way_to_requests(start: Start) -> None:
    rolled = start()
    rolled.bad.slow[rolled.digest(NEW)] = 0.5
    rolled.registry.shadow(NEW, 100)
    until(lambda: rolled.serving.served.snapshot.shadows)
    with httpx.Client(base_url=rolled.serving.url, timeout=60) as client, ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(chat, client, f"Fråga {number}", max_tokens=8) for number in range(60)]
        assert {by(answer.result()) for answer in asked} == {OLD}
    dropped = f'oneseek_shadow_requests_total{{adapter="{ALIAS}",outcome="dropped",version="v1.2"}}'
    assert rolled.serving.counts()[dropped] >= 40
    at_once = [request for request in rolled.bad.requests if request.share == rolled.digest(NEW)]
    assert len(at_once) <= 20


def test_a_shadow_leaves_its_place_in_a_full_queue(start: Start) -> None:
    rolled = start(seqs=2, queue=0)
    rolled.registry.shadow(NEW, 100)
    until(lambda: rolled.serving.served.snapshot.shadows)
    # A client that goes away leaves the shadow of its long answer behind.
    body = {"model": ALIAS, "messages": [{"role": "user", "content": "Hej!"}], "stream": True}
    body |= {"max_tokens": 1000, "ignore_eos": True}
    with rolled.serving.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        next(answer.iter_lines())
    until(lambda: dict(rolled.bad.state().running) == {rolled.digest(NEW): 1})
    # One row is free, and nobody else has a part of the queue.
    assert by(chat(rolled.serving.http, "Fråga", max_tokens=50, n=2)) == OLD
    dropped = f'oneseek_shadow_requests_total{{adapter="{ALIAS}",outcome="dropped",version="v1.2"}}'
    assert rolled.serving.counts()[dropped] >= 1


def test_what_a_trial_no_longer_needs_is_unloaded(start: Start) -> None:
    rolled = start()
    divide(rolled, 10)
    old, new = rolled.digest(OLD), rolled.digest(NEW)

    def resident() -> set[str]:
        return {old, new} & rolled.bad.state().resident.keys()

    assert resident() == {old, new}, "loaded before it answers anything"
    rolled.registry.settle(ALIAS)
    until(lambda: resident() == {old})
    divide(rolled, 10)
    assert resident() == {old, new}
    rolled.registry.promote(NEW)
    until(lambda: resident() == {new})
    assert not rolled.splits()


def test_a_slow_shadow_is_ended_too(start: Start) -> None:
    rolled = start()
    rolled.bad.slow[rolled.digest(NEW)] = 0.1
    rolled.registry.shadow(NEW, 100)
    until(lambda: rolled.serving.served.snapshot.shadows)
    client = rolled.serving.http

    def ended() -> bool:
        by(chat(client, f"Fråga {len(rolled.bad.requests)}"))
        return not rolled.serving.served.snapshot.shadows

    until(ended, 40)
    assert health(rolled)["kind"] == "shadow"
    until(lambda: rolled.registry.listing().pointers.state(ALIAS).shadow is None)


def test_two_servers_divide_alike_and_both_follow_a_rollback(start: Start, tmp_path: Path) -> None:
    rolled = start()
    divide(rolled, 40)
    with another_server(rolled.home, tmp_path) as url, httpx.Client(base_url=url, timeout=60) as other:
        # It starts with the split, before it has answered anything.
        ours = [by(answer) for answer in many(rolled, 24)]
        assert [by(chat(other, f"Fråga nummer {number}")) for number in range(24)] == ours
        assert set(ours) == {OLD, NEW}
        rolled.bad.broken.add(rolled.digest(NEW))
        while rolled.splits():
            many(rolled, 10)
        until(lambda: {by(chat(other, f"Fråga nummer {number}")) for number in range(24)} == {OLD})
