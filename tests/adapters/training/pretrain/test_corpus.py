"""Corpora on disk: every document once, from any place on, in bounded pieces, or refused with its place."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.training.loop.options import OptionError
from adapters.training.pretrain import corpus as corpora
from adapters.training.pretrain.corpus import Corpus, CorpusPosition, CorpusRejection, Piece

START = CorpusPosition()
TEXTS = ["ett", "två ord", "Å, så långt!\nMed två rader."]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def zstd(path: Path, data: bytes) -> None:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        file.write(data)


def parquet(path: Path, texts: list[str]) -> None:
    table = pyarrow.table({"id": list(range(len(texts))), "text": texts})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


WRITERS: dict[str, Callable[[Path, list[str]], object]] = {
    "a.jsonl": lambda path, texts: path.write_bytes(lines(texts)),
    "a.jsonl.gz": lambda path, texts: path.write_bytes(gzip.compress(lines(texts))),
    "a.jsonl.zst": lambda path, texts: zstd(path, lines(texts)),
    "a.parquet": parquet,
}


def read(
    found: Corpus, start: CorpusPosition = START
) -> list[tuple[Piece | CorpusRejection, CorpusPosition]]:
    return list(found.pieces(range(len(found.files)), start))


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_its_documents_from_any_place_on(tmp_path: Path, name: str) -> None:
    texts = [f"{text} {n}" for n in range(50) for text in TEXTS]
    WRITERS[name](tmp_path / name, texts)
    found = Corpus.find(tmp_path, 1.0, 0.0)
    whole = read(found)
    assert [piece.text for piece, _ in whole if isinstance(piece, Piece)] == texts
    for done in (0, 1, 63, 64, 65, 149):
        assert read(found, whole[done][1]) == whole[done + 1 :]


@settings(max_examples=30, deadline=None)
@given(st.text("abåö \n", max_size=900), st.integers(8, 64), st.sampled_from(["", ".gz"]))
def test_a_text_file_is_one_document_in_bounded_pieces(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int, packed: str
) -> None:
    path = tmp_path_factory.mktemp("text") / f"a.txt{packed}"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = Corpus.find(path, 1.0, 0.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(corpora, "PIECE_BYTES", size)
        whole = read(found)
        pieces = [piece for piece, _ in whole if isinstance(piece, Piece)]
        assert "".join(piece.text for piece in pieces) == text
        assert [piece.first for piece in pieces] == [n == 0 for n in range(len(pieces))]
        assert [piece.last for piece in pieces] == [n == len(pieces) - 1 for n in range(len(pieces))]
        assert all(len(piece.text.encode()) <= size for piece in pieces)
        for number, (_, place) in enumerate(whole):
            assert read(found, place) == whole[number + 1 :]


def test_what_is_no_document_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    long = json.dumps({"text": "a" * (4 << 20)})
    rows = ['{"text": "a"}', "no json", '{"body": 1}', "", '{"text": ""}', long, '{"text": "b"}', ""]
    path.write_text("\n".join(rows), encoding="utf-8")
    found = [piece for piece, _ in read(Corpus.find(path, 1.0, 0.0))]
    assert [piece.text for piece in found if isinstance(piece, Piece)] == ["a", "b"]
    refused = [(piece.where, piece.reason) for piece in found if isinstance(piece, CorpusRejection)]
    assert [where for where, _ in refused] == [f"{path}, byte {n}" for n in (14, 22, 35, 48)]
    for (_, reason), named in zip(refused[1:], ("messages", r"\btext\b", r"\b4194304\b"), strict=True):
        assert re.search(named, reason)
    odd = ['{"text": "\\ud800"}', "[" * 200_000, '{"text": "c"}']
    (tmp_path / "odd.jsonl").write_text("\n".join(odd), encoding="utf-8")
    first, second, third = (piece for piece, _ in read(Corpus.find(tmp_path / "odd.jsonl", 1.0, 0.0)))
    assert isinstance(first, CorpusRejection)
    assert "surrogate" in first.reason
    assert isinstance(second, CorpusRejection)
    assert isinstance(third, Piece)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    assert isinstance(read(Corpus.find(tmp_path / "b.txt", 1.0, 0.0))[0][0], CorpusRejection)


def test_conversations_are_read_as_training_an_adapter_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "Hej"}, {"role": "assistant", "content": "Hej hej"}]},
        {"instruction": "Hej", "input": "", "output": "Hej hej"},
        {"messages": [{"role": "user", "content": "Hej"}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first, second, third = (piece for piece, _ in read(Corpus.find(path, 1.0, 0.0)))
    assert isinstance(first, Piece)
    assert isinstance(second, Piece)
    assert [one.content for one in first.messages] == ["Hej", "Hej hej"]
    assert first.messages == second.messages
    assert isinstance(third, CorpusRejection)


def test_a_hash_of_the_document_decides_what_is_held_out(tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(2000)]
    (tmp_path / "a.jsonl").write_bytes(lines(texts))
    (tmp_path / "b.jsonl").write_bytes(lines(texts[::-1]))
    held = [
        {
            piece.text
            for piece, _ in read(Corpus.find(tmp_path / name, 1.0, 0.1))
            if isinstance(piece, Piece) and piece.held
        }
        for name in ("a.jsonl", "b.jsonl")
    ]
    assert held[0] == held[1]
    assert 150 < len(held[0]) < 250


def test_the_digest_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.jsonl").write_bytes(lines(TEXTS))
    first = Corpus.find(tmp_path / "c", 1.0, 0.0).digest(tmp_path / "cache")
    assert Corpus.find(tmp_path / "c", 2.0, 0.5).digest() == first
    (tmp_path / "c" / "a.jsonl").write_bytes(lines(TEXTS[::-1]))
    assert Corpus.find(tmp_path / "c", 1.0, 0.0).digest(tmp_path / "cache") != first


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "nothing"), ("empty", "empty"), ("odd", "odd")],
)
def test_what_cannot_be_read_is_refused_at_once(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.pdf").write_text("", encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        Corpus.find(tmp_path / name, 1.0, 0.0)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("w", encoding="utf-8") as file:
        for _ in range(400):
            file.write("En lång rad om havet och skogen. " * 500 + "\n\n")
    found = Corpus.find(tmp_path, 1.0, 0.0)
    tracemalloc.start()
    try:
        count = sum(1 for _ in found.pieces([0], CorpusPosition()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 90
    assert peak < 1 << 20 < (tmp_path / "a.txt").stat().st_size / 6
