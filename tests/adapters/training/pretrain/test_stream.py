"""Rows of tokens from corpora: nothing lost, nothing twice, exact after a resume, documents kept apart."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from adapters.training.finetune.base import load_tokenizer
from adapters.training.loop.options import OptionError
from adapters.training.loop.schedule import Phase
from adapters.training.pretrain.corpus import Corpus, Piece
from adapters.training.pretrain.mixture import CorpusFeed, held_out_batch
from adapters.training.pretrain.stream import DocumentStream, Encode, PackedRows

WORDS = ["Who", "are", "you", "I", "am", "small", "model", "for", "tests", "answer", "in", "two"]


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 40))) + f" {n}." for n in range(count)]


def write(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encode(tiny_base: Path) -> Encode:
    return Encode(load_tokenizer(tiny_base))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(3):
        write(folder / f"{number}.jsonl", texts(40, number))
    (folder / "book.txt").write_text("\n\n".join(texts(60, 9)), encoding="utf-8")
    chat = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am a model."}]
    (folder / "chat.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 5, encoding="utf-8")
    return folder


def documents(stream: DocumentStream, passes: int = 1) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    while True:
        one = stream.next()
        if one is None or stream.passes == passes:
            return found
        found.append(tuple(one.ids.tolist()))


def test_every_document_comes_once_in_each_pass_in_another_order(corpus: Path, encode: Encode) -> None:
    found = Corpus.find(corpus, 1.0, 0.1)
    stream = DocumentStream(found, encode, seed=1, shuffle=2000)
    first = documents(stream)
    both = documents(DocumentStream(found, encode, seed=1, shuffle=2000), passes=2)
    assert both[: len(first)] == first
    assert both[len(first) :] != first
    assert sorted(both[len(first) :]) == sorted(first)
    held = documents(DocumentStream(found, encode, seed=1, shuffle=2000, held=True))
    assert held
    assert not set(held) & set(first)
    whole = documents(DocumentStream(Corpus.find(corpus, 1.0, 0.0), encode, seed=1, shuffle=10**9))
    assert sorted(first + held) == sorted(whole)
    assert documents(DocumentStream(found, encode, seed=2, shuffle=2000)) != first


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(8, 90), min_size=1, max_size=12), st.integers(0, 11), st.integers(50, 9000))
def test_rows_go_on_to_the_token_from_wherever_they_were(
    corpus: Path, encode: Encode, lengths: list[int], stop: int, shuffle: int
) -> None:
    found = Corpus.find(corpus, 1.0, 0.05)

    def rows() -> PackedRows:
        return PackedRows(DocumentStream(found, encode, seed=3, shuffle=shuffle))

    whole = rows()
    expected = [whole.row(length) for length in lengths]
    before = rows()
    for length in lengths[:stop]:
        before.row(length)
    after = rows()
    after.restore(json.loads(json.dumps(before.state())))
    for length, wanted in zip(lengths[stop:], expected[stop:], strict=True):
        got = after.row(length)
        assert got is not None
        assert wanted is not None
        for one, other in zip(
            (got.ids, got.counts, got.positions), (wanted.ids, wanted.counts, wanted.positions), strict=True
        ):
            assert np.array_equal(one, other)


def test_rows_hold_every_token_once_and_count_each_but_a_documents_first(
    corpus: Path, encode: Encode
) -> None:
    found = Corpus.find(corpus, 1.0, 0.0)
    wanted = [token for one in documents(DocumentStream(found, encode, seed=0, shuffle=500)) for token in one]
    rows = PackedRows(DocumentStream(found, encode, seed=0, shuffle=500))
    got: list[int] = []
    counted = 0
    while len(got) < len(wanted):
        row = rows.row(40)
        assert row is not None
        got += row.ids[1 if got else 0 :].tolist()
        counted += int(row.counts[1:].sum())
        assert len(row.ids) == 41
        assert row.positions.max() <= 40
    assert got[: len(wanted)] == wanted
    assert 0.9 < counted / len(got) < 0.99


def test_documents_in_a_row_do_not_see_each_other(tiny_base: Path, corpus: Path, encode: Encode) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, attn_implementation="eager").eval()
    row = PackedRows(DocumentStream(Corpus.find(corpus, 1.0, 0.0), encode, seed=0, shuffle=500)).row(250)
    assert row is not None
    ids, positions = torch.from_numpy(row.ids)[None], torch.from_numpy(row.positions)[None]
    starts = [n for n, place in enumerate(row.positions) if place == 0] + [len(row.ids)]
    assert len(starts) > 3
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        crossing = model(input_ids=ids, use_cache=False).logits[0]
        for begin, end in itertools.pairwise(starts):
            alone = model(input_ids=ids[:, begin:end], use_cache=False).logits[0]
            torch.testing.assert_close(packed[begin:end], alone, rtol=1e-4, atol=1e-4)
    assert (packed - crossing).abs().max() > 0.01


def test_weights_decide_how_many_rows_each_corpus_gives(tmp_path: Path, encode: Encode) -> None:
    one = Corpus.find(write(tmp_path / "a.jsonl", ["Who are you?"] * 50), 3.0, 0.0)
    other = Corpus.find(write(tmp_path / "b.jsonl", ["I am a small model."] * 50), 1.0, 0.0)
    phases = (Phase(until=0.5, rows=10, length=16), Phase(until=1.0, rows=20, length=8))
    feed = CorpusFeed([one, other], encode, phases, steps=20, seed=5, shuffle=1000)
    batches = [feed.batch(step) for step in range(20)]
    assert [batch.ids.shape for batch in (batches[9], batches[10])] == [(10, 17), (20, 9)]
    assert [batch.fresh for batch in (batches[9], batches[10])] == [160, 160]
    asks = set(encode([Piece("Who are you?")])[0].ids.tolist())
    rows = [row.tolist() for batch in batches for row in batch.ids]
    share = sum(set(row) <= asks for row in rows) / len(rows)
    assert share == pytest.approx(0.75, abs=0.06)


def test_held_out_rows_are_the_same_whatever_is_trained_on(corpus: Path, encode: Encode) -> None:
    found = Corpus.find(corpus, 1.0, 0.2)
    batch = held_out_batch([found], encode, rows=6, length=32, shuffle=500, multiple=4)
    again = held_out_batch([found], encode, rows=6, length=32, shuffle=500, multiple=4)
    assert batch is not None
    assert again is not None
    assert batch.ids.shape == (8, 33)
    assert torch.equal(batch.ids, again.ids)
    assert not batch.counts[6:].any()
    none = Corpus.find(corpus, 1.0, 0.0)
    assert held_out_batch([none], encode, rows=6, length=32, shuffle=500) is None


def test_a_corpus_without_a_document_is_refused_with_the_reason(tmp_path: Path, encode: Encode) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "a"}\n', encoding="utf-8")
    stream = DocumentStream(Corpus.find(tmp_path, 1.0, 0.0), encode, seed=0, shuffle=100)
    with pytest.raises(OptionError, match=r"byte 0\b.*\bmessages\b"):
        stream.next()
