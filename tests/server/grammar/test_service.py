"""Grammars are tried apart: hostile ones are refused in time, and nobody else pays for them."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from server.errors import EngineBusyError
from server.grammar import probe
from server.grammar import service as grammars
from server.grammar import text as grammar
from server.grammar.llg import open_tokenizer
from server.grammar.probe import attempt
from server.grammar.service import Grammars
from server.grammar.text import GrammarRefusedError
from server.text.tokenizer import Tokenizer
from tests.server.small_tokenizers import llama3_like, mistral_like

pytestmark = pytest.mark.anyio


def tokenizer() -> Tokenizer:
    return Tokenizer(mistral_like().to_str(), {"eos_token": "</s>"}, frozenset({2}))


def children() -> set[BaseProcess]:
    return set(multiprocessing.active_children())


@pytest.fixture
def others() -> set[BaseProcess]:
    """Children of a server that other tests share."""
    return children()


@pytest.fixture
async def checks(others: set[BaseProcess]) -> AsyncIterator[Grammars]:
    checks = Grammars(tokenizer())
    await checks.check(grammar.choice(["warm"]))
    yield checks
    checks.close()
    assert children() <= others


def schema(**keywords: Any) -> str:
    return grammar.json_schema(keywords)


def rules(count: int) -> str:
    return "start: r0\n" + "".join(f'r{i}: "a" r{i + 1} "b"\n' for i in range(count)) + f'r{count}: "c"\n'


ENDLESS = schema(type="integer", multipleOf=9999991)
CROSSED = [{"type": "string", "pattern": f".*{c}.{{20}}{c}.*"} for c in "abcdefgh"]
COMBINED = [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(4)]} for i in range(12)]
PATTERNS = {f"k{i}": {"type": "string", "pattern": f"^a{{{i}}}b*$"} for i in range(500)}
HOSTILE = {
    "a huge regex": schema(type="string", pattern="^((a{100}){100}){100}$"),
    "an automaton of many states": grammar.lark("start: X\nX: /(.*a.{20})/ & ~/(.*b.{20}.*)/ & /(.*c.{25})/"),
    "an intersection": schema(allOf=CROSSED),
    "many combinations": schema(allOf=COMBINED),
    "a multiple of a large number": ENDLESS,
    "many optional patterns": schema(type="object", properties=PATTERNS),
    "doubling rules": grammar.lark(
        "start: r0\n" + "".join(f"r{i}: r{i + 1} r{i + 1}\n" for i in range(60)) + 'r60: "a"'
    ),
    "doubling terminals": grammar.lark(
        "start: R0\n" + "".join(f"R{i}: R{i + 1} R{i + 1}\n" for i in range(60)) + 'R60: "a"'
    ),
    "more recursion than there is stack": grammar.lark(rules(5000)),
    "parentheses": grammar.lark("start: " + "(" * 5000 + '"a"' + ")" * 5000),
    "groups": grammar.regex("(" * 5000 + "a" + ")" * 5000),
    "a deep schema": grammar.lark("start: %json " + '{"items":' * 5000 + "{}" + "}" * 5000),
    "too large": grammar.choice(["x" * 200_000]),
    "too large in bytes": grammar.choice(["å" * 100_000]),
    "no text": schema(**{"$ref": "#"}),
    "no texts": schema(enum=[]),
    "an unknown rule": grammar.lark("start: nowhere"),
    "a token that is not there": grammar.lark("start: <[99999]>"),
}  # fmt: skip


async def refusal(checks: Grammars, text: str) -> str:
    try:
        await checks.check(text)
    except GrammarRefusedError as error:
        return str(error)
    return ""


async def test_hostile_grammars_are_refused_in_time(checks: Grammars) -> None:
    for name, text in HOSTILE.items():
        began = time.perf_counter()
        said = await refusal(checks, text)
        assert time.perf_counter() - began < 60, name
        assert 10 < len(said) < 350, name
    await checks.check(grammar.json_object())


async def test_ordinary_ones_pass(checks: Grammars) -> None:
    for text in (
        grammar.json_object(),
        grammar.regex(r"\d{4}-\d{2}-\d{2}"),
        schema(enum=[f"value-{i}" for i in range(2000)]),
        schema(properties={f"k{i}": {"type": "string"} for i in range(200)}, additionalProperties=False),
        schema(properties={"next": {"$ref": "#"}, "value": {}}),
        schema(type="array", maxItems=1000, items={"type": "string", "maxLength": 1000}),
        grammar.lark("start: expr\nexpr: expr /[-+]/ term | term\nterm: /[0-9]+/ | \"(\" expr \")\""),
    ):  # fmt: skip
        await checks.check(text)


async def test_a_byte_level_tokenizer() -> None:
    other = llama3_like()
    ends = frozenset(other.encode("<|eot_id|><|end_of_text|>", add_special_tokens=False).ids)
    checks = Grammars(Tokenizer(other.to_str(), {}, ends))
    await checks.check(grammar.json_object())
    checks.close()


async def test_a_verdict_is_remembered(checks: Grammars) -> None:
    good, bad = grammar.choice(["a", "b"]), grammar.lark("start: nowhere")
    await checks.check(good)
    with pytest.raises(GrammarRefusedError) as first:
        await checks.check(bad)
    checks.close()  # whatever is asked of the child from here on fails
    await checks.check(good)
    with pytest.raises(GrammarRefusedError) as second:
        await checks.check(bad)
    assert str(first.value) == str(second.value)


async def test_few_verdicts_are_kept(checks: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "REMEMBERED", 3)
    for i in range(6):
        await checks.check(grammar.choice([f"a{i}"]))
    checks.close()
    await checks.check(grammar.choice(["a5"]))
    with pytest.raises(RuntimeError):
        await checks.check(grammar.choice(["a1"]))


async def test_an_overrun_kills_the_child_and_the_next_one_is_served(others: set[BaseProcess]) -> None:
    hasty = Grammars(tokenizer(), seconds=0.1)
    await hasty.check(grammar.choice(["warm"]))
    with pytest.raises(GrammarRefusedError, match=r"\b0\.1 s"):
        await hasty.check(ENDLESS)
    assert children() <= others
    began = time.perf_counter()
    await hasty.check(grammar.choice(["after"]))
    assert time.perf_counter() - began < 30
    hasty.close()


async def test_a_child_that_died_idle_is_replaced(checks: Grammars, others: set[BaseProcess]) -> None:
    (child,) = children() - others
    child.kill()
    child.join()
    await checks.check(grammar.choice(["risen"]))


async def test_one_askers_flood_leaves_others_their_turn(checks: Grammars) -> None:
    flood = [asyncio.create_task(checks.check(grammar.choice([f"f{i}"]), "flood")) for i in range(30)]
    await asyncio.sleep(0)
    await checks.check(grammar.choice(["other"]), "other")
    assert sum(task.done() for task in flood) <= 3
    await asyncio.gather(*flood)


async def test_a_slow_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_tokenizer(tokenizer())
    assert attempt(reader, grammar.json_object()) == ""
    monkeypatch.setattr(probe, "MASK_SECONDS", 0.0)
    assert "single token" in (attempt(reader, grammar.json_object()) or "")


async def test_too_many_that_wait_are_told_so(checks: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "MAX_WAITING", 3)
    texts = [grammar.choice([f"w{i}"]) for i in range(10)]
    results = await asyncio.gather(*map(checks.check, texts), return_exceptions=True)
    busy = [error for error in results if isinstance(error, EngineBusyError)]
    assert [type(error) for error in results] == [type(None)] * 3 + [EngineBusyError] * 7
    assert all(error.retry_after >= 1 for error in busy)
    await checks.check(texts[-1])


async def test_a_client_that_leaves_the_queue_gives_its_place_back(
    checks: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "MAX_WAITING", 2)
    first = asyncio.create_task(checks.check(ENDLESS))
    second = asyncio.create_task(checks.check(grammar.choice(["gone"])))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.wait([second])
    await checks.check(grammar.choice(["next"]))
    with pytest.raises(GrammarRefusedError):
        await first


async def test_the_loop_goes_on_meanwhile(checks: Grammars) -> None:
    task = asyncio.create_task(checks.check(ENDLESS))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 10
    assert isinstance(task.exception(), GrammarRefusedError)


async def test_a_trial_has_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []
    poll = Connection.poll

    def recorded(pipe: Connection[object, object], timeout: float | None = 0.0) -> bool:
        waited.append(timeout)
        return poll(pipe, timeout)

    monkeypatch.setattr(Connection, "poll", recorded)
    checks = Grammars(tokenizer())
    await checks.check(grammar.choice(["a"]))
    checks.close()
    assert waited[-1] == 2


async def test_a_trial_has_128_mebibytes(checks: Grammars, others: set[BaseProcess]) -> None:
    if sys.platform != "linux":
        pytest.skip("a process's memory is bounded on Linux alone")
    import resource

    (child,) = children() - others
    limit, _ = resource.prlimit(child.pid or 0, resource.RLIMIT_DATA)
    taken = re.search(r"^VmData:\s+(\d+) kB$", Path(f"/proc/{child.pid}/status").read_text(), re.MULTILINE)
    assert taken
    assert 0 < limit <= (int(taken[1]) << 10) + (128 << 20)


async def test_a_trial_has_less_stack_than_a_thread_of_the_server(checks: Grammars) -> None:
    assert await refusal(checks, grammar.lark(rules(1000))), "eight MiB would be enough for it"


async def test_a_grammar_is_measured_before_it_is_tried() -> None:
    checks = Grammars(tokenizer())
    checks.close()  # whatever is asked of the child fails
    for text in ("x" * ((128 << 10) + 1), "å" * ((64 << 10) + 1)):
        with pytest.raises(GrammarRefusedError, match="128 KiB"):
            await checks.check(text)


async def test_a_grammar_is_followed_before_it_is_believed(checks: Grammars) -> None:
    assert await refusal(checks, HOSTILE["no text"]), "it compiles"
