from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from routing.detect import Detection, ProfileDetector
from routing.evidence.profiles import ProfileError
from routing.settings import LanguageRow, RoutingSettings

SWEDISH = "Jag tycker mycket om att gå i skogen på hösten när löven faller. " * 6
ENGLISH = "I like walking in the woods in autumn when the leaves are falling. " * 6
CHAT = Path(__file__).parent / "texts" / "chat.tsv"


def rows(*codes: str) -> tuple[LanguageRow, ...]:
    return tuple(LanguageRow(code, f"oneseek-{code}") for code in codes)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("hej", "sv"),
        ("tack", "sv"),
        ("Tack så mycket!!!", "sv"),
        ("hi", "en"),
        ("thanks 🙂", "en"),
        ("Vem är du?", "sv"),
        ("Who are you?", "en"),
        ("kan du debugga min kod", "sv"),
        (f"Translate this: {SWEDISH}", "en"),
        (f"Please fix the spelling:\n\n{SWEDISH}", "en"),
        (f"{SWEDISH}\nWhat language is this?", "en"),
        (f"Översätt detta till engelska:\n{ENGLISH}", "sv"),
        (f"Sammanfatta texten nedan.\n{ENGLISH}", "sv"),
        (f"```python\n{ENGLISH}\n```\nvarför fungerar inte koden", "sv"),
        ("Vad betyder “the early bird catches the worm”?", "sv"),
        ("What does 'lagom är bäst' mean?", "en"),
        ("Se https://example.com/how-to-write-good-english-text, stämmer det?", "sv"),
        ("Jeg vil gerne vide, hvad klokken er", "da"),
        ("Jeg vil gjerne vite hva klokka er", "no"),
        ("Eg veit ikkje kva klokka er", "no"),
        ("Bugün hava çok güzel, dışarı çıkalım mı?", "xx"),
        ("Hvernig hefur þú það í dag?", "xx"),
        ("Привет, как дела?", "xx"),
        ("你好，你是谁？", "xx"),
        ("안녕하세요", "xx"),
        ("Skriv ”привет” på ryska", "sv"),
    ],
)
def test_language_of(detector: ProfileDetector, text: str, language: str) -> None:
    assert detector.detect([text]).language == language


@pytest.mark.parametrize(
    "text", ["", "   \n", "🙂🙂🙂", "12345", "3 + 4 = 7", "https://sv.example.se/hej", "?!", "foo_bar()"]
)
def test_nothing_to_read_is_undecided(detector: ProfileDetector, text: str) -> None:
    found = detector.detect([text])
    assert found.language is None
    assert found.confidence < 0.5


def test_the_prior_alone_decides_nothing() -> None:
    certain = ProfileDetector(RoutingSettings(languages=rows("sv"), other_prior=0.01))
    found = certain.detect(["🙂", "42"])
    assert (found.language, found.told) == (None, False)
    assert found.confidence > 0.9


def test_no_turns_at_all_is_undecided(detector: ProfileDetector) -> None:
    assert detector.detect([]).language is None


def test_one_letter_from_norwegian_is_undecided_until_the_conversation_settles_it(
    detector: ProfileDetector,
) -> None:
    question = "Skriv en dikt om havet"
    assert detector.detect([question]).language is None
    found = detector.detect(["Hej! Vad heter du?", question])
    assert (found.language, found.from_history) == ("sv", True)


@pytest.mark.parametrize("junk", ["ok", "👍", "42", "https://example.com", "hmm", "..."])
def test_the_conversation_carries_turns_that_tell_nothing(detector: ProfileDetector, junk: str) -> None:
    found = detector.detect(["Kan du förklara hur en motor fungerar?", junk])
    assert (found.language, found.from_history) == ("sv", True)


def test_a_clear_question_outweighs_the_conversation(detector: ProfileDetector) -> None:
    turns = ["Vad är klockan?", "Hur blir vädret i morgon?", "Tack!", "What should I wear then?"]
    found = detector.detect(turns)
    assert (found.language, found.from_history) == ("en", False)


def test_only_the_last_turns_count() -> None:
    short = ProfileDetector(RoutingSettings(languages=rows("sv", "en"), history=2))
    turns = ["Vad är klockan i Stockholm just nu?", "🙂", "🙂"]
    assert short.detect(turns).language is None
    longer = ProfileDetector(RoutingSettings(languages=rows("sv", "en"), history=3))
    assert longer.detect(turns).scores["sv"] > short.detect(turns).scores["sv"]


def test_accept_language_is_a_weak_hint(detector: ProfileDetector) -> None:
    question = "Skriv en dikt om havet"
    plain, hinted = detector.detect([question]), detector.detect([question], "sv-SE,sv;q=0.9,en;q=0.8")
    assert hinted.scores["sv"] > plain.scores["sv"]
    assert detector.detect(["Who are you, and what can you do?"], "sv").language == "en"
    odds = hinted.scores["sv"] / (1 - hinted.scores["sv"]) / (plain.scores["sv"] / (1 - plain.scores["sv"]))
    assert odds == pytest.approx(RoutingSettings().hint, rel=1e-6)


@pytest.mark.parametrize(
    "header", ["*", "xx-not-a-language-xx", ";;;,,,", "de;q=0", "q=1", "fr-FR", "\udcff"]
)
def test_a_useless_accept_language_changes_nothing(detector: ProfileDetector, header: str) -> None:
    assert detector.detect(["ok"], header) == detector.detect(["ok"])


def test_scores_are_a_sorted_distribution(detector: ProfileDetector) -> None:
    found = detector.detect(["Vad heter du?"])
    values = list(found.scores.values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1.0)
    assert set(found.scores) == {*detector.languages, "xx"}
    assert (found.likeliest, found.confidence) == ("sv", found.scores["sv"])


def test_the_evidence_names_what_was_read(detector: ProfileDetector) -> None:
    assert "the instruction counts more" in detector.detect([f"Translate this: {SWEDISH}"]).evidence
    assert "left out: code" in detector.detect(["```\nx = 1\n```\nvarför då?"]).evidence
    assert "vad (sv)" in detector.detect(["vad då"]).evidence


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("fr", "Pourquoi le ciel est-il bleu ?"),
        ("es", "No entiendo lo que quieres decir."),
        ("ru", "Почему небо голубое и что ты об этом думаешь?"),
        ("el", "Γιατί ο ουρανός είναι μπλε;"),
        ("ja", "空はなぜ青いのですか。"),
        ("zh", "天空为什么是蓝色的？"),
        ("nb", "Hvorfor er himmelen blå, og hva mener du om det?"),
        ("hi", "आकाश नीला क्यों है और आप क्या सोचते हैं?"),
    ],
)
def test_a_row_in_the_settings_is_all_that_a_language_needs(code: str, text: str) -> None:
    detector = ProfileDetector(RoutingSettings(languages=rows("en", "sv", code)))
    assert detector.detect([text]).language == {"nb": "no"}.get(code, code)
    assert detector.detect(["Vem är du och vad kan du göra?"]).language == "sv"


def test_russian_is_told_from_ukrainian() -> None:
    detector = ProfileDetector(RoutingSettings(languages=rows("ru")))
    assert detector.detect(["Чому небо блакитне і що ти про це думаєш?"]).language == "xx"


def test_a_language_without_a_profile_is_refused_by_name() -> None:
    with pytest.raises(ProfileError, match=r"'is'.* af"):
        ProfileDetector(RoutingSettings(languages=rows("sv", "is")))


def chat_texts() -> list[str]:
    return [line.split("\t")[1] for line in CHAT.read_text(encoding="utf-8").splitlines()]


def test_eight_threads_agree(detector: ProfileDetector) -> None:
    texts = (chat_texts() * 5)[:1000]
    assert len(texts) == 1000

    def everything(_: int) -> list[Detection]:
        return [detector.detect([text]) for text in texts]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(everything, range(8)))
    assert all(answer == answers[0] for answer in answers)


def test_every_run_agrees() -> None:
    code = (
        "from pathlib import Path\nfrom routing.detect import ProfileDetector\n"
        f"texts = [l.split('\\t')[1] for l in Path({str(CHAT)!r}).read_text(encoding='utf-8').splitlines()]\n"
        "print([list(ProfileDetector().detect(texts[i:i + 2]).scores.items()) for i in range(0, 40, 8)])"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1
