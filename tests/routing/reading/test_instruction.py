from __future__ import annotations

import pytest

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
