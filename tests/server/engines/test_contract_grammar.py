"""What every engine promises of grammars: the text keeps to them, and those without one notice nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import UnsupportedRequestError
from server.grammar import text as grammar
from server.grammar.calls import tool_calls
from server.request import AdapterMix, Delta, GenerationRequest, Sampling
from server.text.tokenizer import Tokenizer
from server.text.tool_formats import MISTRAL
from server.text.tool_syntax import TOOL_CALLS

pytestmark = pytest.mark.anyio
PROMPT = (1, 5, 9, 70)
count = itertools.count()
Short = Annotated[str, Field(max_length=6)]


class Mood(Enum):
    GLAD = "glad"
    SAD = "ledsen"


class Point(BaseModel):
    x: Annotated[int, Field(ge=-99, le=99)]
    y: Annotated[int, Field(ge=0, le=9)] | None


class Answer(BaseModel):
    title: Short
    mood: Mood
    points: Annotated[list[Point], Field(min_length=1, max_length=2)]
    sure: bool


SCHEMA: dict[str, Any] = Answer.model_json_schema() | {"additionalProperties": False}
for definition in SCHEMA["$defs"].values():
    if definition["type"] == "object":
        definition["additionalProperties"] = False
GRAMMAR = grammar.json_schema(SCHEMA)


def ask(
    text: str = "", adapter_mix: AdapterMix = (), prompt: tuple[int, ...] = PROMPT, **sampling: Any
) -> GenerationRequest:
    settings: dict[str, Any] = {"max_tokens": 200, "temperature": 1.0, "seed": 0, **sampling}
    return GenerationRequest(
        request_id=f"grammar-{next(count)}",
        prompt=prompt,
        sampling=Sampling(grammar=text, **settings),
        adapter_mix=adapter_mix,
        share=adapter_mix[0][0] if adapter_mix else "",
    )


async def collect(engine: Engine, request: GenerationRequest) -> list[Delta]:
    return [delta async for delta in engine.generate(request)]


async def answer(engine: Engine, request: GenerationRequest) -> tuple[str, str | None]:
    deltas = await collect(engine, request)
    return "".join(delta.text for delta in deltas), deltas[-1].finish_reason


def ids_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


async def test_fifty_answers_fit_the_schema_and_free_ones_are_as_ever(
    engine: Engine, voices: dict[str, Adapter]
) -> None:
    kinds: list[AdapterMix] = [(), *(((adapter.digest, 1.0),) for adapter in voices.values())]
    free = [ask(adapter_mix=kinds[i % 3], seed=i, max_tokens=30, prompt=(1, 40 + i)) for i in range(12)]
    before = [ids_of(await collect(engine, request)) for request in free]
    again = [ask(adapter_mix=kinds[i % 3], seed=i, max_tokens=30, prompt=(1, 40 + i)) for i in range(12)]
    bound = [ask(GRAMMAR, kinds[i % 3], seed=i) for i in range(50)]
    beside, held = await asyncio.gather(
        asyncio.gather(*(collect(engine, request) for request in again)),
        asyncio.gather(*(answer(engine, request) for request in bound)),
    )
    assert [ids_of(deltas) for deltas in beside] == before
    assert [reason for _, reason in held] == ["stop"] * 50
    for text, _ in held:
        Answer.model_validate_json(text)
        assert not re.search(r"\s\s|^\s|\s$", re.sub(r'"(\\.|[^"\\])*"', "", text))
    assert len({text for text, _ in held}) > 40


async def test_any_object_and_no_more_white_space_than_one_blank(engine: Engine) -> None:
    texts = await asyncio.gather(
        *(answer(engine, ask(grammar.json_object(), seed=i, max_tokens=120)) for i in range(16))
    )
    done = [text for text, reason in texts if reason == "stop"]
    assert done
    assert all(isinstance(json.loads(text), dict) for text in done)


@pytest.mark.parametrize("seed", range(4))
async def test_a_choice_is_letter_for_letter(engine: Engine, seed: int) -> None:
    options = ["ja", 'nej "aldrig"', "åäö\n", "ja visst"]
    text, reason = await answer(engine, ask(grammar.choice(options), seed=seed))
    assert text in options
    assert reason == "stop"


async def test_a_pattern_holds_for_the_whole_text(engine: Engine) -> None:
    pattern = r"[a-f]{3}/\d{2,4}"
    text, reason = await answer(engine, ask(grammar.regex(pattern)))
    assert re.fullmatch(pattern, text)
    assert reason == "stop"
    if engine.info.name != "vllm":
        text, reason = await answer(engine, ask(grammar.regex(pattern), ignore_eos=True))
        assert re.fullmatch(r"[a-f]{3}/\d{4}", text), "ignore_eos goes on as far as the pattern does"
        assert reason == "stop"


async def test_greedy_with_logprobs_that_stay_the_models_own(engine: Engine) -> None:
    bound = await collect(engine, ask(grammar.choice(["ja", "nej"]), temperature=0.0, logprobs=3))
    free = await collect(engine, ask(temperature=0.0, max_tokens=1, logprobs=3, ignore_eos=True))
    scored, own = bound[0].logprobs[0], free[0].logprobs[0]
    if engine.info.name == "vllm":  # its logprobs are of what the grammar allows, as docs/engines.md says
        assert scored.logprob > own.logprob
        return
    assert scored.top == own.top
    assert scored.token_id != own.token_id
    assert scored.logprob <= own.logprob
    assert len([score for delta in bound for score in delta.logprobs]) == len(ids_of(bound))


async def test_max_tokens_cuts_the_text(engine: Engine) -> None:
    text, reason = await answer(engine, ask(GRAMMAR, max_tokens=5))
    assert reason == "length"
    assert text.startswith('{"ti')


async def test_a_text_complete_with_its_last_token_has_stopped(engine: Engine) -> None:
    whole = await collect(engine, ask(grammar.choice(["ja"]), logit_bias={2: 100.0}))
    length = len(ids_of(whole))
    cut = await collect(engine, ask(grammar.choice(["ja"]), max_tokens=length))
    assert cut[-1].finish_reason == "stop"
    assert cut[-1].usage is not None
    assert cut[-1].usage.completion_tokens == length
    assert "".join(delta.text for delta in cut) == "ja"


async def test_neither_min_tokens_nor_ignore_eos_go_past_the_end(engine: Engine) -> None:
    extras: list[dict[str, Any]] = [{"min_tokens": 100}, {"ignore_eos": True}]
    for extra in (*extras, extras[0] | extras[1]):
        if engine.info.name == "vllm":  # it would forbid the end where nothing else is allowed
            with pytest.raises(UnsupportedRequestError) as caught:
                await collect(engine, ask(grammar.choice(["ja"]), **extra))
            assert caught.value.param in extra
            continue
        assert await answer(engine, ask(grammar.choice(["ja", "nej"]), **extra)) in (
            ("ja", "stop"),
            ("nej", "stop"),
        )


async def test_min_tokens_holds_while_the_grammar_lets_it(engine: Engine) -> None:
    bias = {2: 100.0}  # the end, wherever it is allowed
    shortest = await collect(engine, ask(grammar.regex("a*"), logit_bias=bias))
    assert ids_of(shortest) == [2]
    if engine.info.name == "vllm":
        pytest.skip("this engine takes no min_tokens beside a grammar, which the test before checks")
    longer = await collect(engine, ask(grammar.regex("a*"), logit_bias=bias, min_tokens=6))
    assert len(ids_of(longer)) == 7


async def test_bias_and_penalties_do_not_lead_out_of_the_grammar(engine: Engine) -> None:
    bias = dict.fromkeys(range(3, 259), 100.0)
    sampling: dict[str, Any] = {
        "logit_bias": bias,
        "repetition_penalty": 3.0,
        "frequency_penalty": 2.0,
        "top_k": 5,
    }
    text, reason = await answer(engine, ask(GRAMMAR, **sampling))
    assert reason == "stop"
    Answer.model_validate_json(text)


async def test_a_stop_string_ends_a_grammars_text_too(engine: Engine) -> None:
    text, reason = await answer(engine, ask(GRAMMAR, stop=('"mood"',)))
    assert reason == "stop"
    assert re.fullmatch(r'\{"title": ?"(\\.|[^"\\])*", ?', text)


async def test_special_tokens_are_none_of_the_text(engine: Engine) -> None:
    bias = {0: 100.0, 1: 100.0}
    deltas = await collect(engine, ask(grammar.regex(r"(?s:.){8}"), logit_bias=bias))
    assert not {0, 1} & set(ids_of(deltas))


async def test_a_special_token_by_its_number(engine: Engine) -> None:
    tools = {"weather": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"],
                         "additionalProperties": False, "$defs": {"n": {"enum": [1, 2]}}},
             "time": {"type": "object", "additionalProperties": False}}  # fmt: skip
    text = tool_calls(MISTRAL, tools, {TOOL_CALLS: 1}, parallel=False)
    for seed in range(8):
        deltas = await collect(engine, ask(text, seed=seed))
        assert ids_of(deltas)[0] == 1
        (call,) = json.loads("".join(delta.text for delta in deltas))
        assert call in (
            {"name": "weather", "arguments": {"n": 1}},
            {"name": "weather", "arguments": {"n": 2}},
            {"name": "time", "arguments": {}},
        )


async def test_what_cannot_be_compiled_is_refused_and_nothing_else_suffers(engine: Engine) -> None:
    bad = [grammar.json_schema({"type": "rubbish"}), "start: nowhere", grammar.lark('start: "open')]
    for text in bad:
        with pytest.raises(UnsupportedRequestError, match="grammar"):
            await collect(engine, ask(text))
    assert (await answer(engine, ask(grammar.choice(["ja"]))))[0] == "ja"


async def test_the_same_seed_gives_the_same_text(engine: Engine) -> None:
    texts = [await answer(engine, ask(GRAMMAR, seed=7)) for _ in range(3)]
    assert len(set(texts)) == 1


async def test_preempted_sequences_keep_their_place(
    make_engine: Callable[..., Engine], tiny_base: Path
) -> None:
    roomy, tight = make_engine(max_num_seqs=8), make_engine(max_num_seqs=8, kv_tokens=256)
    prompt = tuple(Tokenizer.load(tiny_base).encode("Who are you? I am a small model for tests."))
    for engine in (roomy, tight):
        await engine.start()
    try:
        cases = [(prompt, i) for i in range(8)]
        calm = [await answer(roomy, ask(GRAMMAR, prompt=p, seed=i, max_tokens=120)) for p, i in cases]
        pressed = await asyncio.gather(
            *(answer(tight, ask(GRAMMAR, prompt=p, seed=i, max_tokens=120)) for p, i in cases)
        )
        assert pressed == calm
        assert tight.state().preemptions > 0
    finally:
        for engine in (roomy, tight):
            await engine.close()
