"""Evaluates routing by topic, on new questions of each topic and on questions about other subjects."""

from __future__ import annotations

from pathlib import Path

from routing.evaluate.judge import Proportion
from routing.evaluate.texts import half_of
from routing.settings import RoutingSettings
from routing.topics.model import AdapterTopic, TopicModel

TOPICS, ELSE = "topics", "other"
"""Name of the folder with a file for each topic, and of the file in it (without .txt) with questions about
other subjects.
"""
HALVES = ("fitted", "kept")
"""Names of the folders with additional questions for half 0 and half 1 of the texts. The half of such a
question is decided by its folder; that of any other text by its hash.
"""
_REST = "\n--\n"
"""Line in a topic's file that separates the topic's examples from the questions for evaluation."""


def _further(folder: Path, half: int | None) -> list[tuple[str | None, str]]:
    """Return (topic, question) pairs from the folders in `HALVES` with additional questions, for `half` 0 or
    1, or for both if it is None. The topic is None for a question about another subject.
    """
    chosen = HALVES if half is None else HALVES[half : half + 1]
    return [
        (None if path.stem == ELSE else path.stem, question)
        for name in chosen
        for path in sorted(folder.joinpath(name).glob("*.txt"))
        for question in path.read_text(encoding="utf-8").strip().split("\n")
    ]


def judge_topics(folder: Path, half: int | None) -> dict[str, Proportion]:
    """Return the proportions of questions routed to their own topic and to a wrong topic, and of other
    questions routed to any topic.
    """
    if not folder.joinpath(TOPICS).is_dir():
        return {}
    topics: list[AdapterTopic] = []
    asked: list[tuple[str | None, str]] = []
    for path in sorted(folder.joinpath(TOPICS).glob("*.txt")):
        examples, rest, questions = path.read_text(encoding="utf-8").strip().partition(_REST)
        if rest:
            topics.append(AdapterTopic(path.stem, tuple(examples.split("\n"))))
        own = path.stem if rest else None
        asked += [(own, question) for question in (questions or examples).split("\n")]
    asked = [(topic, question) for topic, question in asked if half is None or half_of(question) == half]
    asked += _further(folder / TOPICS, half)
    model, sure = TopicModel(topics), RoutingSettings().sure
    found: list[tuple[str | None, str | None]] = []
    for topic, question in asked:
        match = model.match(question)
        sent = match.likeliest if match is not None and match.confidence >= sure else None
        found.append((topic, sent))
    ours = [(topic, sent) for topic, sent in found if topic is not None]
    others = [sent is not None for topic, sent in found if topic is None]
    return {
        "right topic": Proportion(sum(topic == sent for topic, sent in ours), len(ours)),
        "wrong topic": Proportion(sum(sent not in (None, topic) for topic, sent in ours), len(ours)),
        "other questions sent to one": Proportion(sum(others), len(others)),
    }
