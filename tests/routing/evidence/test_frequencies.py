from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from routing.detect import BACKGROUND, NEIGHBOURS
from routing.evidence.build_frequencies import SIZES, pack, read_words
from routing.evidence.frequencies import fold, load_frequencies
from routing.evidence.listed import PackedWords, listed_words
from routing.evidence.words import known_words

IMPORTS = "import asyncio, email.message, http.client, json, logging, ssl, typing, uuid"
"""What takes an interpreter an eighth of what the tables take, on any machine."""


def test_every_word_stands_where_its_language_says() -> None:
    listed, table = listed_words(), load_frequencies(NEIGHBOURS, BACKGROUND)
    assert listed.languages.keys() == SIZES.keys()
    column = NEIGHBOURS.index("sv")
    rows, logarithms = listed.languages["sv"]
    assert np.all(np.diff(rows) > 0)
    above = (logarithms - table.floors[column]) / 0.25
    assert np.all(table.levels[rows, column] >= np.clip(np.rint(above), 0, 127))
    for word in known_words()["sv"]:
        assert table.levels[table.exact[word], column] > 0, word


def test_a_plain_spelling_is_looked_up_as_what_it_stands_for() -> None:
    table = load_frequencies(NEIGHBOURS, BACKGROUND)
    swedish, english = NEIGHBOURS.index("sv"), NEIGHBOURS.index("en")
    found = table.score(["forstar"], (), plain=True)
    spelled = table.score(["forstar"], (), plain=False)
    assert found is not None
    assert found[swedish] > found[english]
    assert spelled is None or spelled[swedish] <= found[swedish]
    assert all(fold(word).isascii() for word in ("förstår", "æblegrød", "straße"))


def test_languages_without_a_list_need_no_table() -> None:
    table = load_frequencies(("ru",), ("uk",))
    assert (dict(table.exact), table.levels.shape) == ({}, (1, 2))


def test_packing_keeps_words_levels_and_spellings(tmp_path: Path) -> None:
    lists = {"sv": ["is", "på"], "en": ["is"]}
    blob = msgspec.msgpack.encode([{"format": "cB", "version": 1}, [], ["is", "2nd"], *([[]] * 50), ["på"]])
    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(blob))
    read = read_words(path, 10)
    assert [word for _, word in read] == lists["sv"]
    packed = pack({"sv": read, "en": read[:1], "is": read})
    assert isinstance(packed, PackedWords)
    assert (packed.words, packed.typed) == ("is\npå", "pa")
    assert np.frombuffer(packed.languages["sv"].gaps, "<u2").tolist() == [1, 1]
    assert np.frombuffer(packed.languages["sv"].levels, np.uint8).tolist() == [level for level, _ in read]
    assert np.frombuffer(packed.accented, "<u4").tolist() == [2]


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer takes time of its own")
def test_the_tables_load_in_little_time() -> None:
    """On a slow or busy machine, in the time of 25 times some imports."""

    def once(work: str) -> float:
        code = f"import time, numpy; start = time.process_time(); {work}; print(time.process_time() - start)"
        return float(subprocess.check_output([sys.executable, "-c", code]))

    tables = "from routing.detect import ProfileDetector; ProfileDetector()"
    turns = [(once(tables), once(IMPORTS)) for _ in range(3)]
    ours, imports = (min(column) for column in zip(*turns, strict=True))
    assert ours < max(0.7, 25 * imports)
