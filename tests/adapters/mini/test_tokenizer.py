"""The shipped tokenizer gives every text back, in one piece and token by token."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from adapters.mini.shipped import BASE
from adapters.training.loop.packing import Encoder, pack
from adapters.training.pretrain.tokenizer import CHAT_TEMPLATE

TOKENIZER = Tokenizer.from_file(str(BASE / "tokenizer.json"))
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="▁")).map(
    lambda text: unicodedata.normalize("NFC", text)
)


@given(TEXT)
@example("Vad är klockan i Åmål på ön?")
@example("  två  mellanslag  ")
@example("🐻‍❄️ ✨ 你好 \u0000 \n\t")
@example("")
def test_decoding_undoes_encoding(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    if not any(name in text for name in ("<s>", "</s>", "<unk>", "[INST]", "[/INST]")):
        assert TOKENIZER.decode(ids) == text


@given(TEXT.filter(lambda text: bool(text.strip())))
def test_a_stream_of_tokens_gives_the_same_text(text: str) -> None:
    text = text.strip()
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    stream = DecodeStream(skip_special_tokens=True)
    joined = "".join(stream.step(TOKENIZER, token) or "" for token in ids)
    assert joined.lstrip(" ") == TOKENIZER.decode(ids).lstrip(" ")


def test_the_special_tokens_are_mistrals() -> None:
    assert [TOKENIZER.id_to_token(n) for n in range(5)] == ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>"]
    assert TOKENIZER.id_to_token(258) == "<0xFF>"
    assert TOKENIZER.encode("hej").tokens[0] == "<s>"


def test_digits_stand_alone() -> None:
    assert TOKENIZER.encode("12345", add_special_tokens=False).tokens[-5:] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("system", ["", "Be kind."])
def test_the_template_gives_the_tokens_that_were_trained_on(system: str) -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    told = json.loads((BASE / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert told["chat_template"] == CHAT_TEMPLATE
    turns = [("Vem är du?", "Jag är här."), ("And 7 + 5?", "7 + 5 = 12.")]
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    rendered = (
        ImmutableSandboxedEnvironment()
        .from_string(CHAT_TEMPLATE)
        .render(messages=messages, bos_token="<s>", eos_token="</s>")
    )
    trained = Encoder(TOKENIZER).document(turns, system)
    assert TOKENIZER.encode(rendered, add_special_tokens=False).ids == list(trained.ids)
    said = [token for token, counts in zip(trained.ids, trained.answer, strict=True) if counts]
    assert TOKENIZER.decode(said[: said.index(2)]) == "Jag är här."


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 4), st.integers(8, 40))
def test_packing_keeps_documents_whole(lengths: list[int], rows: int, length: int) -> None:
    from adapters.training.loop.packing import Document

    documents = [Document((n + 10,) * size, (True,) * size) for n, size in enumerate(lengths)]
    batch = pack(documents, rows, length, fill=2)
    assert tuple(batch.ids.shape) == (rows, length)
    assert bool((batch.counts == (batch.ids != 2)).all())
    for n, size in enumerate(lengths):
        assert int((batch.ids == n + 10).sum()) in (0, size)
