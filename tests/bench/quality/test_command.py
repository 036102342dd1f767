from __future__ import annotations

import pytest

from bench.cli.dispatch import main
from bench.quality.command import QualityOptions, QualityReport, lines, to_json
from bench.quality.scores import QualityShare, VoiceScores, wrong_costs

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--least speed=1", "speed"),
        ("--least routing=2", "routing=2"),
        ("--least routing", "'routing'"),
        ("--tokens 0", "tokens"),
        ("--at-once 0", "at_once"),
        ("--identity=", "identity"),
        ("--url http://a --start oneseek", "--start"),
    ],
)
def test_a_mistake_names_the_word_and_is_2(
    arguments: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quality", *arguments.split()]) == 2
    assert named in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", "--url", NOBODY]) == 1
    assert NOBODY in capsys.readouterr().err


def test_the_worst_score_is_of_right_adapters_and_missed_comes_first() -> None:
    def score(voice: str, right: bool, fidelity: int) -> VoiceScores:
        return VoiceScores(voice, "sv", right, QualityShare(fidelity, 10), QualityShare(5, 10), None)

    scores = [score("sv", True, 9), score("en", False, 1)]
    routing = {"plain": QualityShare(9, 10), "terse": QualityShare(6, 10)}
    report = QualityReport(routing, scores, wrong_costs(scores))
    assert (report.worst("routing"), report.worst("fidelity"), report.worst("identity")) == (0.6, 0.9, 0.5)
    assert QualityReport({}, [], []).worst("routing") is None
    assert lines(report, {"routing": 0.6})[0].startswith("MISSED: routing")
    told = to_json(report)
    assert told["wrong_adapter"][0]["fidelity"] == pytest.approx(0.8)
    assert QualityOptions().identity == "OneSeek"
