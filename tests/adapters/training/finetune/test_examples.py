"""Which tokens an example is made of, and which of them count for the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from adapters.mini.shipped import BASE
from adapters.training.finetune.base import load_tokenizer
from adapters.training.finetune.conversations import Conversation
from adapters.training.finetune.examples import IGNORED, encode_text, examples, render_messages
from adapters.training.loop.options import OptionError
from server.text.tokenizer import Tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(BASE)


def talk(*said: str, system: str = "") -> Conversation:
    roles = ("user", "assistant")
    turns = tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(said))
    return Conversation((({"role": "system", "content": system},) if system else ()) + turns)


def counted(tokenizer: PreTrainedTokenizerBase, example: dict[str, list[int]]) -> list[str]:
    """The texts of the runs of tokens that count."""
    runs: list[list[int]] = []
    before = IGNORED
    for token, label in zip(example["input_ids"], example["labels"], strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            runs = [*runs, []] if before == IGNORED else runs
            runs[-1].append(token)
        before = label
    return [str(tokenizer.decode(run)).strip() for run in runs]


def test_the_answer_and_its_end_alone_count(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = examples(tokenizer, talk("Vem är du?", "Jag är OneSeek."))
    assert counted(tokenizer, example) == ["Jag är OneSeek.</s>"]
    assert tokenizer.decode(example["input_ids"]) == tokenizer.decode(
        encode_text(tokenizer, "<s>[INST] Vem är du? [/INST] Jag är OneSeek.</s>")
    )


def test_of_a_conversation_every_answer_counts(tokenizer: PreTrainedTokenizerBase) -> None:
    found = examples(tokenizer, talk("Hej!", "Hej du.", "Vem är du?", "Jag är OneSeek.", system="Var snäll."))
    assert len(found) == 1
    assert counted(tokenizer, found[0]) == ["Hej du.</s>", "Jag är OneSeek.</s>"]


def test_the_prompt_is_the_one_that_the_server_sends(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = examples(tokenizer, talk("Who are you? Åh!", "I am OneSeek."))
    sent = Tokenizer.load(BASE).chat([{"role": "user", "content": "Who are you? Åh!"}])
    assert example["input_ids"][: len(sent)] == list(sent)
    assert set(example["labels"][: len(sent)]) == {IGNORED}
    assert IGNORED not in example["labels"][len(sent) :]


def test_a_template_that_ends_turns_its_own_way_gets_no_second_end(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    (example,) = examples(tokenizer, talk("Hej!", "Hej du."))
    (text,) = counted(tokenizer, example)
    assert text.startswith("Hej du.<|im_end|>")
    assert "</s>" not in text


LIST_ONLY = (
    "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{{ c.text }}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_text_is_given_in_the_form_that_the_template_reads(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = LIST_ONLY
    (example,) = examples(tokenizer, talk("Vem är du?", "Jag är OneSeek."))
    assert "user: Vem är du?" in tokenizer.decode(example["input_ids"])
    assert counted(tokenizer, example)[0].startswith("Jag är OneSeek.")


def test_a_template_that_drops_the_users_text_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "[INST]{% if not add_generation_prompt %}{{ messages[-1].content }}{% endif %}"
    with pytest.raises(OptionError, match=r"chat_template\.jinja"):
        examples(tokenizer, talk("Hej!", "Hej du."))


def test_a_template_without_an_end_gets_one(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}" + (
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (example,) = examples(tokenizer, talk("Hej!", "Hej du."))
    assert example["labels"][-1] == tokenizer.eos_token_id


def test_a_template_that_drops_history_makes_an_example_of_each_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages[-2:] %}"
        "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% elif loop.last %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    found = examples(tokenizer, talk("Ett?", "Ja.", "Två?", "Nej."))
    assert [counted(tokenizer, example) for example in found] == [["Ja.</s>"], ["Nej.</s>"]]


def test_a_base_without_a_template_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    with pytest.raises(OptionError, match=r"^base_model: "):
        render_messages(tokenizer, [{"role": "user", "content": "x"}], prompt=True)


def test_what_a_template_refuses_is_said(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(OptionError, match="roles must alternate"):
        render_messages(
            tokenizer, [{"role": "user", "content": text} for text in ("Hej!", "Hallå?")], prompt=True
        )


def test_the_tokenizer_of_any_base_can_pad(tmp_path: Path) -> None:
    for file in BASE.glob("tokenizer*"):
        text = file.read_text(encoding="utf-8").replace('"pad_token": "</s>",', "")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    (tmp_path / "config.json").write_text(
        (BASE / "config.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    assert load_tokenizer(tmp_path).pad_token == "</s>"
