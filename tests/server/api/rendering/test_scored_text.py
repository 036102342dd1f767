"""The tokens of an answer join to its text, however the text comes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.rendering.scored_text import ScoredText
from server.request import TokenLogprob
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer
from tests.server.small_tokenizers import llama3_like, mistral_like, write_model

TEXT = "Vem är du? 日本語 😀 naïve café 𐍈ꙮ!"


@pytest.fixture(scope="module", params=["byte-level", "byte-fallback"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "byte-level":
        return Tokenizer.load(write_model(folder, llama3_like(), "<|begin_of_text|>", "<|eot_id|>"))
    return Tokenizer.load(write_model(folder, mistral_like(), "<s>", "</s>"))


def stream(
    tokenizer: Tokenizer, ids: Sequence[int], stop: tuple[str, ...] = ()
) -> list[tuple[list[TokenLogprob], str, bool]]:
    """Deltas as an engine makes them: tokens, the text that may be shown, whether they are the last."""
    text = TextStream(tokenizer, stop)
    deltas: list[tuple[list[TokenLogprob], str, bool]] = []
    for place, token in enumerate(ids):
        shown, found = text.push(token)
        last = found is not None or place == len(ids) - 1
        if last and found is None:
            shown += text.finish()
        deltas.append(([TokenLogprob(token, -1.0, ((token, -1.0), (5, -2.0)))], shown, last))
        if last:
            break
    return deltas


def check(tokenizer: Tokenizer, deltas: list[tuple[list[TokenLogprob], str, bool]]) -> None:
    scored = ScoredText(tokenizer)
    streamed = [entry for delta in deltas for entry in scored.entries(delta[0], delta[1], last=delta[2])]
    text = "".join(shown for _, shown, _ in deltas)
    tokens = [token for one, _, _ in deltas for token in one]
    assert list(ScoredText(tokenizer).entries(tokens, text, last=True)) == streamed
    assert len(streamed) == len(tokens)
    assert "".join(entry["token"] for entry in streamed) == text
    if "\ufffd" not in text:
        assert b"".join(bytes(entry["bytes"]) for entry in streamed) == text.encode()
    for entry in streamed:
        assert entry["top_logprobs"][0] == {name: entry[name] for name in ("token", "logprob", "bytes")}


def test_characters_that_are_split_over_tokens(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode(TEXT, add_special_tokens=False), *tokenizer.eos_ids]
    assert any("\ufffd" in tokenizer.token_text(token) for token in ids)
    check(tokenizer, stream(tokenizer, ids))


@pytest.mark.parametrize("stop", ["du?", "日", "本語 😀", "é"])
def test_what_a_stop_string_cuts_off(tokenizer: Tokenizer, stop: str) -> None:
    check(tokenizer, stream(tokenizer, tokenizer.encode(TEXT, add_special_tokens=False), (stop, "never")))


@given(data=st.data())
def test_any_tokens(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = st.integers(0, tokenizer.vocabulary_size - 1)
    stop = data.draw(st.sampled_from([(), ("e",), ("ab", " d")]))
    check(tokenizer, stream(tokenizer, data.draw(st.lists(ids, min_size=1, max_size=12)), stop))


def test_tokens_by_their_ids(tokenizer: Tokenizer) -> None:
    (entry,) = ScoredText(tokenizer, as_ids=True).entries(
        [TokenLogprob(70, -0.5, ((71, -0.25),))], tokenizer.token_text(70), last=True
    )
    assert (entry["token"], entry["top_logprobs"][0]["token"]) == ("token_id:70", "token_id:71")


def test_tokens_of_calls_come_at_once(tokenizer: Tokenizer) -> None:
    scored = ScoredText(tokenizer, joins=False)
    ids = tokenizer.encode("Hello", add_special_tokens=False)
    entries = list(scored.entries([TokenLogprob(token, -1.0) for token in ids], "", last=False))
    assert len(entries) == len(ids)
