"""Build messages that are hard for language detectors: with pasted text, with code, or typed
without accents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from routing.evaluate.judge import Judge, Proportion, expected
from routing.evaluate.texts import LabelledText, half_of, read_pairs
from routing.evidence.frequencies import fold

PARTS = "parts"
"""Name of the subfolder that holds the parts from which test messages are built, such as instructions and
code.
"""
_MOST = 400
"""Maximum number of messages of one kind that are evaluated."""
_NAMES = (
    "Göteborg?",
    "Harry Potter",
    "Malmö",
    "Taylor Swift",
    "Åre?",
    "Stockholm",
    "Star Wars?",
    "Örebro",
    "iPhone",
)


def plain_letters(texts: Sequence[LabelledText]) -> list[LabelledText]:
    """Return the texts that have letters beyond a to z, with these letters replaced as people do on a
    keyboard that lacks them.
    """
    return [
        LabelledText("plain letters", text.language, fold(text.text.lower()))
        for text in texts
        if not text.text.isascii() and text.language in ("sv", "da", "nb", "nn", "is")
    ]


def instructions(folder: Path, half: int | None, *, last: bool) -> Iterator[tuple[str, str]]:
    """Yield (language of the instruction, message with the instruction and a text in another language)."""
    for label, rest in read_pairs(folder / PARTS / "instructions.tsv"):
        where, _, asked = rest.partition("\t")
        if (where == "last") is not last or not _in(half, asked):
            continue
        for spoken, payload in read_pairs(folder / PARTS / "payloads.tsv"):
            if spoken == label:
                continue
            if last:
                yield label, f"{payload}\n\n{asked}"
                yield label, f"{payload}\n{asked}"
            else:
                yield label, f"{asked}: {payload}"
                if " " in asked:
                    yield label, f"{asked}\n\n{payload}"


def templates(folder: Path, half: int | None, questions: Sequence[LabelledText]) -> Iterator[tuple[str, str]]:
    """Yield (language of the question, prompt). The prompt is a retrieval template in another language,
    filled with the question and a text.
    """
    asked = [text for text in questions if text.language in ("sv", "en") and text.text.count(" ") > 2]
    payloads = list(read_pairs(folder / PARTS / "payloads.tsv"))
    for number, text in enumerate(asked[:_MOST]):
        for spoken, template in read_pairs(folder / PARTS / "templates.tsv"):
            others = [payload for language, payload in payloads if language != text.language]
            payload = others[number % len(others)]
            if spoken != text.language:
                yield text.language, template.format(payload=payload, question=text.text)


def code_in_conversation(
    folder: Path, questions: Sequence[LabelledText]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (language, conversation) pairs. The last message is only code, or a question with code.

    The code patterns of `routing.reading.code` were developed on these snippets, so only the questions are
    held-out data.
    """
    snippets = [code for _, code in read_pairs(folder / PARTS / "code.tsv")]
    asked = [text for text in questions if text.language in ("sv", "en") and text.text.count(" ") > 2]
    for number, text in enumerate(asked[:_MOST]):
        snippet = snippets[number % len(snippets)]
        yield text.language, (text.text, snippet)
        yield text.language, (f"{text.text}\n{snippet}",)
        yield text.language, (f"{snippet}\n\n{text.text}",)


def names_in_conversation(questions: Sequence[LabelledText]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield (language, conversation) pairs in which the last message is only a name, such as "Stockholm"."""
    asked = [text for text in questions if text.language in ("sv", "en") and text.text.count(" ") > 2]
    for number, text in enumerate(asked[:_MOST]):
        yield text.language, (text.text, _NAMES[number % len(_NAMES)])


def share_right(judge: Judge, conversations: Iterator[tuple[str, tuple[str, ...]]]) -> dict[str, Proportion]:
    """Return, for each language, the proportion of its conversations that are routed to its adapter."""
    hits: dict[str, list[bool]] = {}
    for language, turns in conversations:
        hits.setdefault(language, []).append(judge.adapter(*turns) == expected(language))
    return {f"{language} followed": Proportion(sum(found), len(found)) for language, found in hits.items()}


def alone(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Turn each (language, message) pair into (language, conversation with that one message)."""
    return ((language, (text,)) for language, text in pairs)


def made_kinds(
    folder: Path, half: int | None, chat: Sequence[LabelledText]
) -> dict[str, Callable[[], Iterator[tuple[str, tuple[str, ...]]]]]:
    """Map the name of each kind of test message to a function that builds its conversations."""
    return {
        "instruction first, then a text": lambda: alone(instructions(folder, half, last=False)),
        "a text, then the instruction": lambda: alone(instructions(folder, half, last=True)),
        "questions in templates": lambda: alone(templates(folder, half, chat)),
        "code in a conversation": lambda: code_in_conversation(folder, chat),
        "a name in a conversation": lambda: names_in_conversation(chat),
    }


def _in(half: int | None, text: str) -> bool:
    return half is None or half_of(text) == half
