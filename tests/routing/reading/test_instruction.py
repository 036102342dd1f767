from __future__ import annotations

import pytest

from routing.reading.clean import clean
from routing.reading.instruction import find_instruction

SWEDISH = "Hej allihop, mötet är flyttat till fredag klockan tolv eftersom flera av oss är sjuka."
ENGLISH = "Good morning everyone, the meeting is moved to Friday at noon because several of us are ill."


@pytest.mark.parametrize(
    ("text", "instruction", "sure"),
    [
        ("översätt: I would like to know when the shop opens", "översätt", True),
        ("Fix grammar: jag gillar inte det", "fix grammar", True),
        (f"{ENGLISH}\nÖversätt till svenska", "översätt till svenska", True),
        (f"{ENGLISH} Översätt till svenska", "översätt till svenska", True),
        (f"{SWEDISH}\n\nWhat does this mean?", "what does this mean", True),
        (f"Is this spam: {SWEDISH}", "is this spam", True),
        (f"Min fråga om brevet\n{ENGLISH} {ENGLISH}", "min fråga om brevet", False),
        (
            f"Use this context.\n\n{ENGLISH}\n\nQuestion: När öppnar det?\nHelpful Answer:",
            "när öppnar det",
            True,
        ),
        (f"{ENGLISH}\nQuery: Vad kostar det\nAnswer: ", "vad kostar det", True),
        (f"{SWEDISH}\nFråga: What is new", "what is new", True),
        (f"{ENGLISH}\n\n### Question:\nNär öppnar det?\n\n### Answer:", "när öppnar det", True),
        (f"# Question\nNär öppnar det\n\n# Context\n{ENGLISH}", "när öppnar det", True),
        (f"**Question:** När öppnar det\n\n**Context:** {ENGLISH}", "när öppnar det", True),
        (
            "Human: hi\nAssistant: hello\nFollow Up Input: och för barn\nStandalone question:",
            "och för barn",
            True,
        ),
        (f"The original query is as follows: vad kostar det\n{ENGLISH}", "vad kostar det", True),
        ("User: hi\nBot: hello\nUser: I am late\n\nsammanfatta samtalet", "sammanfatta samtalet", True),
        (
            "Vad är rätt svar?\nWhich planet is the largest? A) Mars B) Jupiter C) Venus",
            "vad är rätt svar",
            False,
        ),
        ("oversatt: what time does it open", "oversatt", True),
        ("kortare: We are sorry to inform you", "kortare", True),
        (f"{SWEDISH}\nIn English?", "in english", True),
        ("Please review the contract. Sign it by Monday.\nvad menar hon?", "vad menar hon", False),
        ("Mötet är flyttat till torsdag.\n\nhvad står der?", "hvad står der", True),
        (
            "Styrelsen beslutade att höja avgiften med tre procent från årsskiftet.\n\nsome bullet points",
            "some bullet points",
            False,
        ),
    ],
)
def test_the_part_that_asks_is_found(text: str, instruction: str, sure: bool) -> None:
    found = find_instruction(text, 1_200)
    assert found is not None
    assert (" ".join(found.words.all), found.sure) == (instruction, sure)


@pytest.mark.parametrize(
    "text", ["Question: när öppnar det", SWEDISH, "Obs: kom i tid", "", f"{SWEDISH}\n{SWEDISH}"]
)
def test_other_messages_have_none(text: str) -> None:
    assert find_instruction(text, 1_200) is None


def test_the_tags_around_a_question_are_a_label() -> None:
    for opened, closed in (
        ("<question>", "</question>"),
        ("<user_query>", "</user_query>"),
        ("[QUESTION]", "[/QUESTION]"),
    ):
        found = clean(
            f"Answer from the text.\n\n{ENGLISH}\n\n{opened}\nNär öppnar det?\n{closed}"
        ).instruction
        assert found is not None
        assert " ".join(found.words.all) == "när öppnar det"


def test_a_label_above_a_question_is_found_in_text_from_windows() -> None:
    found = clean(f"{ENGLISH}\r\n\r\n### Question:\r\nNär öppnar det?\r\n\r\n### Answer:\r\n").instruction
    assert found is not None
    assert " ".join(found.words.all) == "när öppnar det"
