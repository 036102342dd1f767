"""Which answers are dropped, and why; and that what is kept passes `oneseek data check`."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adapters.datasets.check import Check
from adapters.datasets.index import whole_text
from adapters.datasets.minhash import shingles, similarity
from adapters.distillation.dedup import Deduplicator
from adapters.distillation.filters import FILTERS, PARAPHRASE_FILTERS, Candidate, Rules, fault
from adapters.distillation.judging import grade, judge_key, judge_prompt
from adapters.distillation.options import DistillOptions
from adapters.distillation.refusals import refuses, speaks_as_another
from adapters.training.loop.options import OptionError
from routing.detect import ProfileDetector

DETECTOR = ProfileDetector()
GOOD = "Stockholm är Sveriges huvudstad och ligger vid Mälaren."
WORDS = ("sol", "måne", "hav", "skog", "berg", "sjö", "älv", "by", "ö")
TEXT = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)


def language_of(text: str) -> str | None:
    return DETECTOR.detect([text]).language


def rules(**options: float) -> Rules:
    return Rules("sv", language_of, DistillOptions(**options))  # pyright: ignore[reportArgumentType] each name has its own type


def told(
    answer: str, prompt: str = "Vad heter Sveriges huvudstad?", *, ended: bool = True, **options: float
) -> str | None:
    return fault(Candidate(prompt, answer, ended), rules(**options))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (GOOD, None),
        ("Ja.", None),
        ("", "empty"),
        (" \n", "empty"),
        ("[INST] Vad heter du? [/INST]", "stray tokens"),
        ("Stockholm</s>", "stray tokens"),
        ("Stock\ufffdholm är huvudstaden.", "stray tokens"),
        ("Stock\x07holm är huvudstaden.", "stray tokens"),
        ("7", "short"),
        ("ord " * 600, "long"),
        ("The capital of Sweden is Stockholm, which lies on many islands.", "language"),
        ("Hovedstaden i Sverige er København, ikke sandt, og det ved jeg godt.", "language"),
        ("Tyvärr kan jag inte hjälpa dig med det.", "refusal"),
        ("Jag heter ChatGPT och är en språkmodell.", "another model's name"),
        ("Jag är en språkmodell som tränats av OpenAI för att hjälpa dig.", "another model's name"),
        ("Vad heter Sveriges huvudstad?", "copy of the prompt"),
        ("vad heter Sveriges  HUVUDSTAD", "copy of the prompt"),
        (
            "Det är Stockholm, ja det är Stockholm, ja det är Stockholm, ja det är Stockholm.",
            "repeats itself",
        ),
    ],
)
def test_each_reason(answer: str, reason: str | None) -> None:
    assert told(answer) == reason


def test_what_did_not_end_is_dropped_however_good() -> None:
    assert told(GOOD, ended=False) == "unfinished"


def test_thresholds_are_options() -> None:
    assert told(GOOD, most_characters=20) == "long"
    assert told("Ja.", least_characters=4) == "short"
    half = "Vad heter Sveriges huvudstad? Den heter Stockholm, tror jag nog."
    assert told(half, most_copied=0.1) == "copy of the prompt"
    assert told(half, most_copied=0.9) is None
    again = "Det är så här, och det är så här, vill jag säga om saken i dag."
    assert told(again, most_repeated=0.05) == "repeats itself"
    assert told(again, most_repeated=0.9) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Jag kan tyvärr inte hjälpa dig med det.",
        "Jag kan inte svara på den frågan.",
        "Tyvärr har jag ingen uppgift om det.",
        "Jag beklagar, men det där går inte.",
        "Som en AI-modell har jag inte egna åsikter.",
        "Jag vet inte.",
        "Jag har inte möjlighet att se vädret.",
        "Det ligger utanför min lilla värld, är jag rädd.",
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "I cannot provide that.",
        "As an AI language model, I do not have opinions.",
        "Unfortunately, I don't have that information.",
        "I don't know.",
        "That is beyond my little world.",
    ],
)
def test_refusals_in_both_languages(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Jag kan hjälpa dig med det.",
        "Kör inte för fort. Jag kan dock hjälpa dig att räkna ut tiden.",
        "Man kan inte dela med noll.",
        "Svaret skrivs så här: tack för hjälpen.",
        "I can help you with that.",
        "Water cannot burn.",
        GOOD + " " + GOOD * 4 + " Jag kan inte svara på mer.",
    ],
)
def test_what_is_no_refusal(answer: str) -> None:
    assert not refuses(answer)


def test_another_model_is_one_that_the_answer_says_it_is() -> None:
    assert speaks_as_another("I'm Claude, made by Anthropic.")
    assert speaks_as_another("Jag är GPT-SW3, en svensk språkmodell.")
    assert not speaks_as_another("Android är utvecklat av Google, och Llama är en modell.")
    assert not speaks_as_another("Jag är OneSeek och jämför svar från flera modeller.")


@pytest.mark.parametrize(
    ("prompt", "text", "reason"),
    [
        ("Vem är du?", "Kan du säga vem du är?", None),
        ("Berätta om Lund.", "Beskriv staden Lund för mig.", None),
        ("Vem är du?", "Jag är OneSeek, en AI-agent.", "answered"),
        ("Berätta vem du är.", "Jag är OneSeek, en AI-agent.", "answered"),
        ("Vad är klockan?", "Klockan är tolv nu på dagen.", "not of its kind"),
        ("Vem är du?", "Vem?\nOch var?", "long"),
        ("Vem är du?", "Vem är " + "egentligen " * 20 + "du?", "long"),
        ("Vem är du?", "Who are you, and what is it that you do here?", "language"),
    ],
)
def test_a_paraphrase_asks_for_the_same(prompt: str, text: str, reason: str | None) -> None:
    assert fault(Candidate(prompt, text, True), rules(), PARAPHRASE_FILTERS) == reason


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=120), st.text(max_size=120), st.booleans())
@example("", "", True)
def test_filters_take_any_text_and_always_say_the_same(prompt: str, answer: str, ended: bool) -> None:
    found = Candidate(prompt, answer, ended)
    first = fault(found, rules())
    assert first == fault(found, rules())
    assert first is None or FILTERS[first](found, rules())
    if first is None:
        assert answer.strip()
        assert ended


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=25), st.sampled_from([0.5, 0.8, 1.0]))
def test_known_finds_what_is_alike_and_nothing_else(texts: list[str], near: float) -> None:
    known = Deduplicator(near)
    kept: list[str] = []
    for text in texts:
        closest = max((similarity(shingles(text), shingles(one)) for one in kept), default=0.0)
        if known.repeats(text):
            assert closest >= near
        else:
            # Below 1 a pair shares a band with a probability only; far above the threshold it always has.
            assert closest < max(near, 0.9) or closest < near
            known.add(text)
            kept.append(text)
    assert len(known) == len(kept)
    assert all(known.repeats(f" {text.upper()} ") for text in kept)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=40))
def test_what_known_lets_pass_is_clean_for_data_check(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    known = Deduplicator(0.8)
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    rows: list[dict[str, str]] = []
    for prompt, answer in pairs:
        text = whole_text(prompt, answer)
        if prompt and answer and not known.repeats(text):
            known.add(text)
            rows.append({"instruction": prompt, "input": "", "output": answer})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [one for one in Check([path], near=0.8).problems() if one.kind != "empty"] == []


@pytest.mark.parametrize(
    ("said", "score"),
    [("4", 4), (" 5.\n", 5), ("3/5", 3), ("4 / 5.", 4)]
    + [
        (text, None)
        for text in ("", "6", "0", "45", "Betyg: 4", "fyra", "4, men…", "3.5", "ja", "5/10", "４")
    ],
)
def test_a_grade_is_one_digit_and_nothing_else(said: str, score: int | None) -> None:
    assert grade(said) == score


def test_what_is_judged_is_in_the_question_whatever_it_holds() -> None:
    asked = judge_prompt("Vad är {answer}?", "{prompt} är 1", "sv")
    assert "Fråga: Vad är {answer}?" in asked
    assert "Svar: {prompt} är 1" in asked
    assert judge_key("a", "bc") != judge_key("ab", "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("examples", 0),
        ("concurrency", 0),
        ("attempts", 0.5),
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("near", 1.1),
        ("least_score", 6),
        ("timeout", 0.0),
        ("most_characters", 1),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(OptionError) as error:
        rules(**{name: value})
    assert error.value.name == name
