"""Guides agree with the text that the server shows, whatever the tokenizer, and stop what costs too much."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

from server.engines.embedded.sampling import guided
from server.engines.embedded.sampling.guided import Guide, Guides
from server.engines.embedded.sampling.sampler import BadRowsError, Sampler, SamplerState
from server.errors import EngineError, UnsupportedRequestError
from server.grammar import text as grammar
from server.grammar.llg import compile_grammar
from server.request import Sampling
from server.text.tokenizer import Tokenizer
from tests.server.small_tokenizers import llama3_like, mistral_like

pytestmark = pytest.mark.anyio
PADDING = 37


def tokenizers() -> dict[str, Tokenizer]:
    llama = llama3_like()
    ends = frozenset(llama.encode("<|eot_id|><|end_of_text|>", add_special_tokens=False).ids)
    return {
        "byte fallback": Tokenizer(mistral_like().to_str(), {}, frozenset({2})),
        "metaspace": Tokenizer(mistral_like(metaspace=True).to_str(), {}, frozenset({2})),
        "byte level": Tokenizer(llama.to_str(), {}, ends),
    }


TOKENIZERS = tokenizers()


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


async def guide(tokenizer: Tokenizer, text: str) -> Guide:
    return await Guides(tokenizer, tokenizer.vocabulary_size + PADDING).guide(text)


async def test_the_first_tokens_are_those_whose_bytes_fit(tokenizer: Tokenizer) -> None:
    allowed = np.flatnonzero(
        (await guide(tokenizer, grammar.regex(r"(?s:[ -~å]*)x"))).allowed_tokens()
    ).tolist()
    fitting = {
        token
        for token in range(tokenizer.vocabulary_size)
        if token not in tokenizer.special_ids
        and re.fullmatch(rb"([ -~]|\xc3\xa5)+", tokenizer.token_bytes(token))
    }
    assert len(fitting) > 100
    assert fitting <= set(allowed)
    for token in allowed:
        text = tokenizer.token_bytes(token).decode("utf-8", "ignore")
        assert all(" " <= c <= "~" or c == "å" for c in text)
        assert token not in tokenizer.special_ids


async def test_neither_special_nor_padding_tokens_are_text(tokenizer: Tokenizer) -> None:
    for text in (grammar.regex("(?s:.)+"), grammar.lark("start: <[*]>")):
        allowed = (await guide(tokenizer, text)).allowed_tokens()
        assert allowed.shape == (tokenizer.vocabulary_size + PADDING,)
        assert not allowed[tokenizer.vocabulary_size :].any()
    plain = (await guide(tokenizer, grammar.regex("(?s:.)+"))).allowed_tokens()
    assert not plain[sorted(tokenizer.special_ids)].any()


async def test_every_end_token_ends_an_accepted_text(tokenizer: Tokenizer) -> None:
    for end in tokenizer.eos_ids:
        one = await guide(tokenizer, grammar.regex("a*"))
        assert one.allowed_tokens()[end]
        one.add(end)
        assert one.complete


async def test_a_walk_at_random_shows_a_text_that_fits(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        one, ids = await guide(tokenizer, grammar.choice(["på väg, på väg", "日本語 😀", "nej"])), list[int]()
        while not one.complete:
            ids.append(int(random.choice(np.flatnonzero(one.allowed_tokens()))))
            one.add(ids[-1])
        shown = b"".join(tokenizer.token_bytes(token) for token in ids if token not in tokenizer.eos_ids)
        assert shown.decode() in ("på väg, på väg", "日本語 😀", "nej")


async def test_guides_of_one_grammar_are_apart(tokenizer: Tokenizer) -> None:
    guides = Guides(tokenizer, tokenizer.vocabulary_size)
    text = grammar.regex("ab")
    first, second = await guides.guide(text), await guides.guide(text)
    before = second.allowed_tokens().copy()
    first.add(int(np.flatnonzero(first.allowed_tokens())[0]))
    assert (second.allowed_tokens() == before).all()
    assert (await guides.guide(text)).allowed_tokens().tolist() == before.tolist()


async def test_few_compiled_grammars_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "COMPILED", 2)
    guides = Guides(TOKENIZERS["byte level"], 600)
    for i in range(5):
        assert (await guides.guide(grammar.choice([f"a{i}"]))).allowed_tokens().any()


async def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "START_SECONDS", -1.0)
    with pytest.raises(UnsupportedRequestError):
        (await guide(TOKENIZERS["byte level"], grammar.json_object())).allowed_tokens()


async def test_many_slow_ones_share_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS["byte level"]
    guides = Guides(tokenizer, tokenizer.vocabulary_size)
    one, other = await guides.guide(grammar.json_object()), await guides.guide(grammar.json_object())
    for guide in (one, other):
        guide.allowed_tokens()
    monkeypatch.setattr(guided, "SHARE", 0.0)
    monkeypatch.setattr(guided, "FREE_SECONDS", -0.015)
    one.allowed_tokens()  # its own part is not used up yet
    for guide in (one, other):
        with pytest.raises(UnsupportedRequestError):
            [guide.allowed_tokens() for _ in range(3)]


async def test_what_llguidance_gives_up_is_an_error_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "START_SECONDS", 60.0)
    monkeypatch.setattr(guided, "SHARE", 60.0)
    tokenizer = TOKENIZERS["byte fallback"]
    one = await guide(tokenizer, grammar.lark("start: X\nX: /((a{100}){100}){100}/"))

    def follow() -> None:
        for _ in range(50):
            one.add(int(np.flatnonzero(one.allowed_tokens())[0]))
            assert not one.complete

    with pytest.raises(UnsupportedRequestError):
        follow()


async def test_one_row_that_cannot_go_on_leaves_the_others_their_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = TOKENIZERS["byte fallback"]
    size = tokenizer.vocabulary_size
    sampler = Sampler(size, tokenizer.eos_ids)
    texts = [grammar.choice(["ja"]), "", grammar.choice(["nej"]), ""]
    made: list[SamplerState] = []
    for text in texts:
        one = await Guides(tokenizer, size).guide(text) if text else None
        made.append(
            sampler.state(Sampling(max_tokens=5, temperature=0.0, min_tokens=2, logprobs=0), [1], one)
        )
    logits = np.random.default_rng(1).normal(size=(4, size)).astype(np.float32)
    logits[2, :] = -np.inf
    logits[2, 0] = 1.0  # the one token that the model can take is none of the grammar's
    before = logits.copy()
    with pytest.raises(BadRowsError) as error:
        sampler.sample(logits, made)
    assert list(error.value.faults) == [2]
    assert all(isinstance(fault, EngineError) for fault in error.value.faults.values())
    assert (logits == before).all()
    assert [state.step for state in made] == [0] * 4
    rest = [0, 1, 3]
    first, free, other = sampler.sample(logits[rest], [made[row] for row in rest])
    assert tokenizer.token_bytes(first.token_id) in (b"j", b"ja")
    assert [free.token_id, other.token_id] == before[[1, 3]].argmax(axis=1).tolist()
    assert first.logprob is not None
    row = before[0].astype(np.float64)
    assert first.logprob.logprob == pytest.approx(row[first.token_id] - np.log(np.exp(row).sum()), abs=1e-4)


async def test_a_grammar_that_loses_its_place_fails_its_own_row_alone() -> None:
    class Lost:
        """A parser that fails at whatever it is to go on by."""

        def consume_token(self, token: int) -> None:
            raise RuntimeError("lost")

        def compute_bitmask(self) -> bytes:
            return b"\xff" * size

        def is_error(self) -> bool:
            return False

    size = 16
    sampler = Sampler(size, frozenset())
    plain = Sampling(max_tokens=5, temperature=0.0)
    states = [sampler.state(plain, [1], Guide(Lost(), size, size)), sampler.state(plain, [1])]  # pyright: ignore[reportArgumentType] # a parser in llguidance's place
    logits = np.random.default_rng(1).normal(size=(2, size)).astype(np.float32)
    first = sampler.sample(logits.copy(), states)
    with pytest.raises(BadRowsError) as caught:
        sampler.sample(logits.copy(), states)
    assert list(caught.value.faults) == [0]
    assert sampler.sample(logits[1:].copy(), states[1:]) == first[1:]


def test_an_engine_without_grammars_never_loads_llguidance() -> None:
    code = (
        "import sys, server.asgi.app, server.engines.embedded.launch.launch;"
        "sys.exit('llguidance' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[5], timeout=60)


async def test_a_compiled_grammar_is_kept_until_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def recorded(tokenizer: LLTokenizer, text: str) -> LLMatcher:
        made.append(text)
        return compile_grammar(tokenizer, text)

    monkeypatch.setattr(guided, "compile_grammar", recorded)
    monkeypatch.setattr(guided, "COMPILED", 2)
    guides = Guides(TOKENIZERS["byte level"], 600)
    first, second, third = (grammar.choice([text]) for text in "abc")
    for text in (first, second, second, third, second, first):
        await guides.guide(text)
    assert made == [first, second, third, first]
