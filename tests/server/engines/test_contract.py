"""What every engine promises.

Runs on the engine that `--engine` names: the embedded one in `make test`, vLLM in `make test-vllm`. A new
engine joins by its line in `tests.server.engines.making.ENGINES`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import (
    EngineBusyError,
    EngineDeadError,
    UnsupportedRequestError,
)
from server.request import AdapterMix, GenerationRequest
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import (
    alone,
    ask,
    assert_same_choices,
    collect,
    engine_is_idle,
    random_prompts,
    settles,
    tokens,
)

pytestmark = pytest.mark.anyio


async def test_an_answer_ends_with_its_reason_usage_and_timing(engine: Engine) -> None:
    deltas = await collect(engine, ask([1, 5, 9], max_tokens=7))
    assert [d.finish_reason for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    last = deltas[-1]
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (3, 7)
    assert sum(len(d.token_ids) for d in deltas) == 7
    assert last.timing is not None
    timing = last.timing
    assert timing.arrived <= timing.scheduled <= timing.first_token <= timing.finished


async def test_the_text_is_that_of_the_tokens(engine: Engine, tiny_base: Path) -> None:
    tokenizer = Tokenizer.load(tiny_base)
    deltas = await collect(
        engine, ask(tokenizer.encode("Vem är du?"), max_tokens=40, temperature=1.5, seed=3)
    )
    ids = [token for delta in deltas for token in delta.token_ids]
    shown = (token for token in ids if token not in tokenizer.special_ids)
    expected = b"".join(map(tokenizer.token_bytes, shown)).decode(errors="replace")
    assert "".join(d.text for d in deltas) == expected


async def test_adapters_change_the_answer_and_the_base_stays_itself(
    engine: Engine, voices: dict[str, Adapter]
) -> None:
    prompt = [1, 17, 40, 99, 7]
    base = await tokens(engine, ask(prompt))
    en = await tokens(engine, ask(prompt, alone(voices["en"])))
    sv = await tokens(engine, ask(prompt, alone(voices["sv"])))
    assert base != en
    assert base != sv
    assert en != sv
    assert await tokens(engine, ask(prompt)) == base


async def test_a_mixed_batch_answers_as_each_alone(engine: Engine, voices: dict[str, Adapter]) -> None:
    await check_mixed_batch(engine, voices, 48)


async def check_mixed_batch(engine: Engine, voices: dict[str, Adapter], count: int) -> None:
    """`count` requests of all voices answer together as each does alone."""
    kinds: list[AdapterMix] = [(), alone(voices["en"]), alone(voices["sv"])]
    cases = [(prompt, kinds[i % 3]) for i, prompt in enumerate(random_prompts(count))]
    together = await asyncio.gather(*(tokens(engine, ask(p, v, logprobs=2)) for p, v in cases))
    for (prompt, adapter_mix), batch in zip(cases, together, strict=True):
        assert_same_choices(await collect(engine, ask(prompt, adapter_mix, logprobs=2)), batch)


@pytest.mark.slow
async def test_a_thousand_mixed_requests_answer_as_each_alone(
    engine: Engine, voices: dict[str, Adapter]
) -> None:
    kinds: list[AdapterMix] = [(), alone(voices["en"]), alone(voices["sv"])]
    cases = [(prompt, kinds[i % 3]) for i, prompt in enumerate(random_prompts(1000, seed=1, longest=100))]
    together = await asyncio.gather(*(tokens(engine, ask(p, v)) for p, v in cases))
    for (prompt, adapter_mix), batch in zip(cases, together, strict=True):
        assert_same_choices(await collect(engine, ask(prompt, adapter_mix, logprobs=2)), batch)


async def test_a_seed_gives_the_same_text_whatever_else_runs(engine: Engine) -> None:
    request: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 11, "max_tokens": 20}
    lone = await tokens(engine, ask([1, 30, 60], **request))
    noise = [
        tokens(engine, ask(prompt, temperature=1.0, seed=i)) for i, prompt in enumerate(random_prompts(20))
    ]
    crowded, *_ = await asyncio.gather(tokens(engine, ask([1, 30, 60], **request)), *noise)
    assert crowded == lone
    assert await tokens(engine, ask([1, 30, 60], (), **(request | {"seed": 12}))) != lone


async def test_a_stop_string_ends_the_text_and_is_never_shown(engine: Engine) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "seed": 5}
    whole = "".join(d.text for d in await collect(engine, ask([1, 8, 15], **options)))
    stop = whole[10:13]
    deltas = await collect(engine, ask([1, 8, 15], stop=(stop,), **options))
    assert "".join(d.text for d in deltas) == whole[: whole.index(stop)]
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].stop_reason == stop
    assert engine_is_idle(engine) or await settles(engine)


async def test_what_is_computed_past_a_stop_string_is_not_counted(engine: Engine) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "seed": 5}
    whole = await collect(engine, ask([1, 8, 15], **options))
    ids = [token for delta in whole for token in delta.token_ids]
    text = "".join(delta.text for delta in whole)
    stop = text[10:13]
    deltas = await collect(engine, ask([1, 8, 15], stop=(stop,), logprobs=0, **options))
    usage = deltas[-1].usage
    assert usage is not None
    counted = usage.completion_tokens
    assert [token for delta in deltas for token in delta.token_ids] == ids[:counted]
    assert sum(len(delta.logprobs) for delta in deltas) == counted
    exact = await collect(engine, ask([1, 8, 15], (), stop=(stop,), **options | {"max_tokens": counted}))
    assert exact[-1].finish_reason == "stop"
    short = await collect(engine, ask([1, 8, 15], (), stop=(stop,), **options | {"max_tokens": counted - 1}))
    assert short[-1].finish_reason == "length"
    assert "".join(delta.text for delta in short) == text[: len("".join(delta.text for delta in short))]


async def test_no_stop_string_or_end_token_ends_a_text_before_min_tokens(engine: Engine) -> None:
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "seed": 5}
    text = "".join(d.text for d in await collect(engine, ask([1, 8, 15], **options)))
    deltas = await collect(engine, ask([1, 8, 15], stop=tuple(set(text)), min_tokens=20, **options))
    usage = deltas[-1].usage
    assert usage is not None
    assert 20 <= usage.completion_tokens < 60
    assert deltas[-1].finish_reason == "stop"
    ids = await tokens(engine, ask([1, 8, 15], max_tokens=10))
    early = ask([1, 8, 15], max_tokens=30, stop_token_ids=(ids[0],), min_tokens=5)
    assert len(await tokens(engine, early)) >= 5


async def test_an_answer_that_nobody_reads_frees_its_place_and_is_kept(engine: Engine) -> None:
    async with aclosing(engine.generate(ask([1, 2], max_tokens=50))) as deltas:
        first = await anext(deltas)
        assert await settles(engine)
        rest = [delta async for delta in deltas]
    assert sum(len(delta.token_ids) for delta in (first, *rest)) == 50
    assert rest[-1].finish_reason == "length"


async def test_a_stop_token_ends_the_text(engine: Engine) -> None:
    ids = await tokens(engine, ask([1, 8, 15], max_tokens=10))
    deltas = await collect(engine, ask([1, 8, 15], max_tokens=10, stop_token_ids=(ids[4],)))
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].stop_reason == ids[4]
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == ids.index(ids[4]) + 1


async def test_logprobs_name_the_chosen_token_and_the_likeliest(engine: Engine) -> None:
    deltas = await collect(engine, ask([1, 8, 15], max_tokens=5, logprobs=3, prompt_logprobs=2))
    scores = [score for delta in deltas for score in delta.logprobs]
    assert len(scores) == 5
    for score in scores:
        assert len(score.top) == 3
        assert score.top[0] == (score.token_id, score.logprob)
        assert sum(np.exp(p) for _, p in score.top) <= 1 + 1e-5
    prompt = deltas[0].prompt_logprobs
    assert prompt is not None
    assert [score.token_id for score in prompt] == [8, 15]


async def test_a_prompt_alone_can_be_scored(engine: Engine) -> None:
    (delta,) = await collect(engine, ask(range(3, 203), max_tokens=0, prompt_logprobs=1))
    assert delta.prompt_logprobs is not None
    assert [score.token_id for score in delta.prompt_logprobs] == list(range(4, 203))
    assert delta.token_ids == ()
    assert delta.usage is not None
    assert delta.usage.completion_tokens == 0


async def test_nothing_may_be_asked_for(engine: Engine) -> None:
    (delta,) = await collect(engine, ask([1, 2, 3], max_tokens=0))
    assert (delta.token_ids, delta.prompt_logprobs, delta.finish_reason) == ((), None, "length")
    assert delta.timing is not None


async def test_prompt_scores_are_whole_after_reuse_and_preemption(
    engine: Engine, make_engine: Callable[..., Engine]
) -> None:
    prompts = random_prompts(10, seed=6, longest=90)

    async def scored(engine: Engine, prompt: list[int]) -> list[tuple[int, float]]:
        await tokens(engine, ask(prompt, max_tokens=1))
        deltas = await collect(engine, ask(prompt, max_tokens=60, prompt_logprobs=0))
        assert all(delta.prompt_logprobs is None for delta in deltas[1:])
        usage = deltas[-1].usage
        assert usage is not None
        assert usage.cached_tokens == 0
        assert usage.completion_tokens == 60
        return [(score.token_id, score.logprob) for score in deltas[0].prompt_logprobs or ()]

    little = make_engine(max_num_seqs=10, kv_tokens=256)
    await little.start()
    scores = [
        await asyncio.gather(*(scored(each, prompt) for prompt in prompts)) for each in (engine, little)
    ]
    assert little.state().preemptions > 0
    for prompt, roomy, tight in zip(prompts, *scores, strict=True):
        assert [token for token, _ in roomy] == [token for token, _ in tight] == prompt[1:]
        assert np.allclose([p for _, p in roomy], [p for _, p in tight], atol=1e-4)


async def test_cancelling_frees_the_place(engine: Engine) -> None:
    async with aclosing(engine.generate(ask([1, 2, 3], max_tokens=250))) as deltas:
        await anext(deltas)
        assert not engine_is_idle(engine)
    assert await settles(engine, 0.5)


async def test_a_waiting_request_can_be_cancelled(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_num_seqs=1)
    await engine.start()
    long = asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=200)))
    queued = asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=200)))
    await asyncio.sleep(0.02)
    queued.cancel()
    assert len(await long) == 200
    assert await settles(engine)
    await engine.close()


async def test_a_full_queue_refuses_with_a_time_to_come_back(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_num_seqs=2, max_queue=3)
    await engine.start()
    tasks = [asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=100))) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(EngineBusyError) as caught:
        await tokens(engine, ask([1, 2]))
    assert caught.value.retry_after >= 1
    assert [len(ids) for ids in await asyncio.gather(*tasks)] == [100] * 5
    assert len(await tokens(engine, ask([1, 2], max_tokens=4))) == 4
    await engine.close()


async def test_the_time_to_come_back_is_about_that_of_the_queue(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(max_num_seqs=1, max_queue=99)
    await engine.start()

    def fill() -> list[asyncio.Task[list[int]]]:
        return [asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=3))) for _ in range(100)]

    began = time.perf_counter()
    await asyncio.gather(*fill())
    lasted = time.perf_counter() - began
    waiting = fill()
    await asyncio.sleep(0)
    with pytest.raises(EngineBusyError) as caught:
        await tokens(engine, ask([1, 2]))
    await asyncio.gather(*waiting)
    # What a request is thought to last begins at a second, and 100 requests leave 0.6% of that. Each of them
    # is a twentieth of the mean at most, so that 100 such means are at most 5 times what they took together.
    assert caught.value.retry_after <= 1 + 5 * lasted
    await engine.close()


async def test_what_does_not_fit_the_context_is_refused_by_its_field(engine: Engine) -> None:
    with pytest.raises(UnsupportedRequestError, match="256") as caught:
        await tokens(engine, ask([1] * 200, max_tokens=57))
    assert caught.value.param == "max_tokens"
    assert len(await tokens(engine, ask([1] * 200, max_tokens=56))) == 56


async def test_a_request_that_fills_a_context_of_any_length_is_answered(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(max_num_seqs=1, max_model_len=250, prefix_caching=False)
    await engine.start()
    assert len(await tokens(engine, ask([5] * 10, max_tokens=240))) == 240
    assert engine.state().alive


async def test_little_kv_memory_preempts_and_changes_no_answer(
    engine: Engine, make_engine: Callable[..., Engine]
) -> None:
    prompts = random_prompts(8, seed=4, longest=8)
    little = make_engine(max_num_seqs=12, kv_tokens=256)
    await little.start()

    async def answers(engine: Engine) -> list[list[int]]:
        return await asyncio.gather(*(tokens(engine, ask(prompt, max_tokens=120)) for prompt in prompts))

    tight = await answers(little)
    state = little.state()
    assert state.preemptions > 0
    assert state.kv_tokens <= state.kv_capacity
    assert tight == await answers(engine)


async def test_a_next_turn_does_not_pay_for_its_history(engine: Engine, voices: dict[str, Adapter]) -> None:
    history = list(range(3, 103))
    first = await tokens(engine, ask(history, alone(voices["en"]), max_tokens=8))
    turn = [*history, *first, 7, 7, 7]
    last = (await collect(engine, ask(turn, alone(voices["en"]))))[-1]
    assert last.usage is not None
    assert last.usage.cached_tokens >= 96
    other = (await collect(engine, ask(turn, alone(voices["sv"]))))[-1]
    assert other.usage is not None
    assert other.usage.cached_tokens == 0


async def test_an_id_that_is_used_again_at_once_gets_its_own_answer(engine: Engine) -> None:
    expected = await tokens(engine, ask([1, 9, 30]))
    for _ in range(25):
        request = ask([7, 7, 7], max_tokens=100)
        async with aclosing(engine.generate(request)) as deltas:
            await anext(deltas)
        own = GenerationRequest(request_id=request.request_id, prompt=(1, 9, 30), sampling=ask([1]).sampling)
        assert await tokens(engine, own) == expected


async def test_a_token_outside_the_vocabulary_is_refused_and_harms_nobody(engine: Engine) -> None:
    for token in (-1, engine.info.vocabulary):
        with pytest.raises(UnsupportedRequestError) as caught:
            await tokens(engine, ask([1, token]))
        assert caught.value.param == "prompt"
    assert len(await tokens(engine, ask([1, 2]))) == 12


async def test_an_iterator_that_is_never_read_leaves_nothing(
    engine: Engine, voices: dict[str, Adapter]
) -> None:
    unread = engine.generate(ask([1, 2], alone(voices["en"])))
    await unread.aclose()
    assert engine_is_idle(engine)
    await asyncio.wait_for(engine.unload(voices["en"].digest), 20)


async def test_closing_fails_what_runs_and_the_state_says_so(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    await engine.start()
    assert engine.state().alive
    # More than end before it closes, however slowly this loop runs.
    asked = [asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=250))) for _ in range(50)]
    while not engine.state().running:
        await asyncio.sleep(0)
    await engine.close()
    *_, last = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(last, EngineDeadError)
    assert not engine.state().alive
    with pytest.raises(EngineDeadError):
        await tokens(engine, ask([1, 2]))
    await engine.close()


async def test_what_comes_while_it_closes_is_refused_and_hangs_nobody(
    make_engine: Callable[..., Engine], voices: dict[str, Adapter]
) -> None:
    engine, en = make_engine(), voices["en"]
    await engine.start()
    await engine.load(en)
    unread = engine.generate(ask([1, 2], alone(en), max_tokens=250))
    await anext(unread)
    unloading = asyncio.create_task(engine.unload(en.digest))
    await asyncio.sleep(0)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(tokens(engine, ask([1, 2])), 20)
    await asyncio.wait_for(closing, 20)
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(unloading, 20)
    with pytest.raises(EngineDeadError):
        await engine.load(en)
    await unread.aclose()


def test_the_fixture_is_a_real_checkpoint(family: str, tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    assert config["model_type"] == family
    assert len(config["architectures"]) == 1
