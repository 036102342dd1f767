"""Streaming text: whole characters, nothing of a stop string, and no more held back than must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream

from server.text.detokenizer import StopSearch, TextStream
from server.text.tokenizer import Tokenizer
from tests.server.small_tokenizers import llama3_like, mistral_like, write_model

KINDS = ["mistral", "metaspace", "llama3"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    made = {
        "mistral": (mistral_like(), "<s>", "</s>"),
        "metaspace": (mistral_like(metaspace=True), "<s>", "</s>"),
        "llama3": (llama3_like(), "<|begin_of_text|>", "<|eot_id|>"),
    }
    return {
        kind: Tokenizer.load(write_model(tmp_path_factory.mktemp(kind), tokenizer, bos, eos))
        for kind, (tokenizer, bos, eos) in made.items()
    }


def stream(
    tokenizer: Tokenizer, ids: Sequence[int], stop: tuple[str, ...] = (), min_tokens: int = 0
) -> list[str]:
    """What each push shows, then what the end shows; up to a stop string."""
    text = TextStream(tokenizer, stop, min_tokens)
    shown: list[str] = []
    for token in ids:
        part, found = text.push(token)
        shown.append(part)
        if found is not None:
            return shown
    return [*shown, text.finish()]


def bytes_of(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """Byte-fallback tokens that spell `data`."""
    names = {tokenizer.token_bytes(token): token for token in range(5, 261)}
    return [names[bytes([value])] for value in data]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("Hello you är 日本😀▁é\n  "), max_size=30))
def test_encoded_text_streams_as_it_decodes(tokenizers: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_tokens_stream_as_they_decode(
    tokenizers: dict[str, Tokenizer], kind: str, data: st.DataObject
) -> None:
    tokenizer = tokenizers[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=12))
    decoded = tokenizer.decode(ids)
    # Byte-fallback decoding spoils good characters beside a stray byte, which were shown before it came.
    if "\ufffd" not in decoded or kind == "llama3":
        assert "".join(stream(tokenizer, ids)) == decoded


def test_a_character_comes_whole(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    assert stream(tokenizer, bytes_of(tokenizer, "é😀!".encode())) == ["", "é", "", "", "", "😀", "!", ""]


def test_incomplete_bytes_at_the_end_become_one_replacement(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    assert stream(tokenizer, bytes_of(tokenizer, b"a\xf0\x9f")) == ["a", "", "", "\ufffd"]


def test_stray_bytes_hold_nothing_back(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    assert stream(tokenizer, bytes_of(tokenizer, b"\xc3\xa9\xff\xffa")) == [
        "",
        "é",
        "\ufffd",
        "\ufffd",
        "a",
        "",
    ]


def test_decode_stream_raises_where_ours_goes_on(tokenizers: dict[str, Tokenizer]) -> None:
    """Why `tokenizers`' own stream is not used; should it ever pass, it can be."""
    tokenizer = mistral_like()
    ids = [*bytes_of(tokenizers["mistral"], b"\xc3\xa9\xff"), tokenizer.token_to_id("a") or 0]
    theirs = DecodeStream(skip_special_tokens=True)
    with pytest.raises(Exception, match="Invalid prefix"):
        list(map(partial(theirs.step, tokenizer), ids))
    assert "".join(stream(tokenizers["mistral"], ids)) == "é\ufffda"


def test_special_tokens_are_skipped_unless_wanted(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    hello = tokenizer.encode("Hello you", add_special_tokens=False)
    ids = [1, *hello, 2]
    assert "".join(stream(tokenizer, ids)) == "Hello you"
    shown = TextStream(tokenizer, skip_special_tokens=False)
    assert "".join([*(shown.push(token)[0] for token in ids), shown.finish()]) == tokenizer.decode(ids, False)


def test_a_marked_token_is_the_only_one_that_shows_its_mark(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    mark = "\ufdd2"
    cut = bytes_of(tokenizer, "å".encode())[:1]
    ids = [1, *cut, 3, *bytes_of(tokenizer, f"a{mark}[INST]".encode()), 3, 4, 2]
    text = TextStream(tokenizer, ("T",), marks={3: mark})
    parts: list[str] = []
    for token in ids:
        part, found = text.push(token)
        parts.append(part)
        if found is not None:
            break
    assert "".join(parts) == f"\ufffd{mark}a\ufffd[INS", "up to the stop string; what is forged is no mark"
    assert "".join(stream(tokenizer, [3, *bytes_of(tokenizer, mark.encode())])) == mark
    text = TextStream(tokenizer, marks={3: mark, 4: "\ufdd3"})
    assert [text.push(token)[0] for token in (2, 3, 4)] == ["", mark, "\ufdd3"]


@pytest.mark.parametrize("kind", ["mistral", "metaspace"])
def test_a_completion_keeps_the_space_before_its_first_word(
    tokenizers: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = tokenizers[kind]
    prompt = tokenizer.encode("Hello")
    word = next(token for token in range(600) if re.match(rb" \w", tokenizer.token_bytes(token)))
    shown = tokenizer.token_text(word)
    assert TextStream(tokenizer, prompt=prompt).push(word) == (shown, None)
    assert TextStream(tokenizer, prompt=[*prompt, 2]).push(word) == (shown[1:], None)
    assert TextStream(tokenizer).push(word) == (shown[1:], None)


def test_an_unknown_id_adds_nothing(tokenizers: dict[str, Tokenizer]) -> None:
    assert stream(tokenizers["mistral"], [10**6]) == ["", ""]


def test_stop_strings_across_tokens_and_inside_characters(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    ids = bytes_of(tokenizer, "ab😀cd".encode())
    assert stream(tokenizer, ids, ("😀c",)) == ["a", "b", "", "", "", "", ""]
    assert stream(tokenizer, ids, ("😁",)) == ["a", "b", "", "", "", "😀", "c", "d", ""]
    assert stream(tokenizer, ids, ("b😀x",)) == ["a", "", "", "", "", "", "b😀c", "d", ""]
    assert stream(tokenizer, ids, ("de",))[-2:] == ["", "d"]


def test_the_stop_string_is_named(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    text = TextStream(tokenizer, ("zz", "b"))
    assert [text.push(token) for token in bytes_of(tokenizer, b"ab")] == [("a", None), ("", "b")]


def test_no_stop_string_ends_a_text_that_is_too_short(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["mistral"]
    ids = bytes_of(tokenizer, b"xabyabz")
    assert "".join(stream(tokenizer, ids, ("ab",), min_tokens=3)) == "x"
    assert "".join(stream(tokenizer, ids, ("ab",), min_tokens=4)) == "xaby"
    assert "".join(stream(tokenizer, ids, ("ab",), min_tokens=7)) == "xabyabz"
    # Complete while the text was too short, and with another stop string still possible: it stays passed by.
    assert "".join(stream(tokenizer, bytes_of(tokenizer, b"abxy"), ("ab", "abc"), min_tokens=3)) == "abxy"


def reference_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The text up to the stop string that is complete first; of those complete at once, the longest."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text("abé😀", max_size=4), max_size=10),
    st.lists(st.text("abé😀", min_size=1, max_size=5), min_size=1, max_size=4),
)
@example(["xa", "ab"], ["aab", "ab"])
@example(["aaaa", "b"], ["aab"])
@example(["abab", "abc"], ["ababc"])
def test_stop_search_shows_all_it_can_and_no_more(parts: list[str], stops: list[str]) -> None:
    search = StopSearch(stops)
    shown = whole = ""
    for part in parts:
        whole += part
        text, found = search.push(part, honour=True)
        shown += text
        wanted, stop = reference_stop(whole, stops)
        assert found == stop
        if found is not None:
            assert shown == wanted
            return
        held = max((n for s in stops for n in range(1, len(s)) if whole.endswith(s[:n])), default=0)
        assert shown == whole[: len(whole) - held]
    assert shown + search.finish("") == whole


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    text=st.text(st.sampled_from("Hello you är 日本😀é\n "), max_size=30),
    stop=st.lists(
        st.text(st.sampled_from("Helo yu är日😀\n "), min_size=1, max_size=3), min_size=1, max_size=3
    ),
)
def test_streams_end_before_the_first_stop_string(
    tokenizers: dict[str, Tokenizer], kind: str, text: str, stop: list[str]
) -> None:
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert "".join(stream(tokenizer, ids, tuple(stop))) == reference_stop(tokenizer.decode(ids), stop)[0]


def test_a_hostile_stop_string_costs_no_more() -> None:
    search = StopSearch(["a" * 20_000 + "b"] * 3)
    shown, found = search.push("a" * 100_000, honour=True)
    assert (len(shown), found) == (80_000, None)
    assert search.push("b", honour=True) == ("", "a" * 20_000 + "b")


def test_the_folder_of_a_tokenizer_is_not_needed_afterwards(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_model(tmp_path, mistral_like(), "<s>", "</s>"))
    for path in tmp_path.iterdir():
        path.unlink()
    assert "".join(stream(tokenizer, tokenizer.encode("Hello"))) == "Hello"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="stop"):
        StopSearch(["a", ""])
