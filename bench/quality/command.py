"""`oneseek bench quality`: measure routing accuracy, language fidelity, identity, and what a wrong adapter
costs.

    oneseek bench quality --url http://127.0.0.1:8000
    oneseek bench quality --start oneseek --out quality.json
    oneseek bench quality --adapter en=my-en --adapter sv=my-sv --identity OneSeek --least routing=0.95

Fidelity is the share of answers in the language of the question, and identity the share that give the right
name. The questions and the language detector belong to the benchmark, not to the server. The last line of
standard output is one JSON object. Exit codes: 0; 1 if the server fails or a score is below its --least; 2
for a mistake in the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.cli.options import BenchMistakeError, pairs
from bench.cli.server import ServerChoice, add_start_flags, add_target_flags, opened
from bench.cli.verb import deliver, guarded
from bench.quality.ask import ask_all, log_probability_per_word
from bench.quality.questions import QuestionKind, questions
from bench.quality.scores import QualityShare, VoiceScores, WrongAdapterCost, score_voice, share, wrong_costs
from bench.report.document import describe_target, environment
from bench.target.probe import AUTOMATIC, TargetServer
from bench.text.prompts import FILES, texts

SCHEMA = "oneseek-bench-quality/1"
KINDS: tuple[QuestionKind, ...] = ("plain", "identity", "terse")
ROUTING, FIDELITY, IDENTITY = "routing", "fidelity", "identity"
PASSAGES = 6
"""Number of passages in each language whose log probabilities are measured."""


@dataclass(frozen=True, slots=True)
class QualityOptions:
    """Options of a quality benchmark: the questions to ask, and the length of answers."""

    tokens: int = 48
    """Maximum number of tokens in an answer."""
    count: int = 0
    """Number of questions of each kind in each language. 0: all of them."""
    at_once: int = 8
    identity: str = "OneSeek"
    """Name by which an adapter should introduce itself."""

    def __post_init__(self) -> None:
        for name, least in (("tokens", 1), ("count", 0), ("at_once", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"the option {name} {getattr(self, name)} is too small; use at least {least}"
                )
        if not self.identity:
            raise ValueError(
                "--identity is empty; give the name by which the adapters should introduce themselves"
            )


@dataclass(frozen=True, slots=True)
class QualityReport:
    """All scores of a quality benchmark."""

    routing: Mapping[str, QualityShare]
    """Maps each kind of question to the share of questions that the right adapter answered. Empty if the
    server is not OneSeek, because only OneSeek routes by language.
    """
    scores: Sequence[VoiceScores]
    costs: Sequence[WrongAdapterCost]

    def worst(self, name: str) -> float | None:
        """Return the lowest score called `name`: of `routing` over the kinds of questions, of `fidelity` or
        `identity` over the right adapters. None if nothing was judged.
        """
        if name == ROUTING:
            found = [kind.share for kind in self.routing.values()]
        else:
            found = [getattr(score, name).share for score in self.scores if score.right]
        return min((value for value in found if value is not None), default=None)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench quality`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, plain = parser.add_argument, QualityOptions()
    add(
        "--tokens",
        type=int,
        default=plain.tokens,
        help=f"Maximum number of tokens of each answer. Default: {plain.tokens}.",
    )
    add(
        "--questions",
        type=int,
        default=0,
        help="Number of questions of each kind and language. Default: all.",
    )
    add(
        "--at-once",
        type=int,
        default=plain.at_once,
        help=f"Number of concurrent requests. Default: {plain.at_once}.",
    )
    add(
        "--identity",
        default=plain.identity,
        help=f"Name with which adapters should identify themselves. Default: {plain.identity}.",
    )
    add(
        "--least",
        action="append",
        default=[],
        metavar="SCORE=SHARE",
        help="Lowest score (0 to 1) of routing, fidelity or identity that passes. Repeatable.",
    )
    add("--out", type=Path, help="Write the result to this file, as JSON.")
    add_target_flags(parser)
    add_start_flags(parser)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Ask the questions, score the answers, and print the result. Return the exit code."""
    return guarded("quality", build_parser(), _quality, given)


def _quality(arguments: argparse.Namespace) -> int:
    least, choice = _least(arguments.least), ServerChoice.read(arguments)
    options = QualityOptions(arguments.tokens, arguments.questions, arguments.at_once, arguments.identity)
    with opened(choice) as target:
        about = environment(choice.python) | {"server": describe_target(target.server)}
        report = judge_server(target.server, options)
    missed = {name: report.worst(name) for name, bound in least.items() if (report.worst(name) or 0) < bound}
    print("\n".join(lines(report, missed)))
    document = {"schema": SCHEMA, **about, "options": asdict(options), "missed": missed, **to_json(report)}
    deliver("quality", document, arguments.out)
    return 1 if missed else 0


def _least(entries: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in pairs(entries, "--least").items():
        try:
            bound = float(value)
        except ValueError:
            bound = -1.0
        if name not in (ROUTING, FIDELITY, IDENTITY) or not 0 <= bound <= 1:
            raise BenchMistakeError(
                f"--least {name}={value} is invalid; use routing, fidelity or identity with a number from 0 "
                "to 1"
            )
        found[name] = bound
    return found


def judge_server(target: TargetServer, options: QualityOptions) -> QualityReport:
    """Send all questions to the base and to the adapter of each language, and score the answers. Raises
    `TargetError` if a language has no adapter or a request fails.
    """
    right = {language: target.adapter_for(language) for language in FILES}
    routing = _routing(target, right, options) if target.kind == "oneseek" else {}
    asked = [*questions("identity", options.count), *questions("plain", options.count)]
    scores: list[VoiceScores] = []
    for voice in dict.fromkeys((*right.values(), target.base)):
        answers = ask_all(target.endpoint, voice, asked, options.tokens, options.at_once)
        for language in FILES:
            likely = log_probability_per_word(target.endpoint, voice, texts(language).passages[:PASSAGES])
            own = voice == right[language]
            scores.append(score_voice(voice, language, own, answers, options.identity, likely))
    return QualityReport(routing, scores, wrong_costs(scores))


def _routing(
    target: TargetServer, right: Mapping[str, str], options: QualityOptions
) -> dict[str, QualityShare]:
    found: dict[str, QualityShare] = {}
    for kind in KINDS:
        asked = questions(kind, options.count)
        answers = ask_all(target.endpoint, AUTOMATIC, asked, 1, options.at_once)
        found[kind] = share(answers, lambda answer: answer.answered_by == right[answer.question.language])
    return found


def lines(report: QualityReport, missed: Mapping[str, float | None]) -> list[str]:
    """Return the report as lines of text, beginning with the scores in `missed`, which are too low."""
    found = [f"MISSED: {name} is {value}" for name, value in missed.items()]
    found += [f"routing, {kind:<9} {_show(own)}" for kind, own in report.routing.items()]
    found.append(f"{'voice':<24}{'asked in':<10}{'same language':<22}{'identity':<22}{'nats a word':<12}")
    for score in report.scores:
        mark = "" if score.right else " (wrong)"
        likely = "-" if score.log_probability is None else f"{-score.log_probability:.2f}"
        cells = f"{_show(score.fidelity):<22}{_show(score.identity):<22}{likely}"
        found.append(f"{score.voice:<24}{score.language:<10}{cells}{mark}")
    for cost in report.costs:
        ratio = f", perplexity ×{cost.perplexity_ratio:.2f}" if cost.perplexity_ratio is not None else ""
        found.append(
            f"{cost.wrong} instead of {cost.right} ({cost.language}): "
            f"same language {_loss(cost.fidelity):+.2f}, identity {_loss(cost.identity):+.2f}{ratio}"
        )
    return found


def _loss(cost: float) -> float:
    """Return `cost` as a change, without the sign that zero would get."""
    return 0.0 - round(cost, 2)


def _show(found: QualityShare) -> str:
    if found.interval is None:
        return "-"
    low, high = found.interval
    return f"{found.right}/{found.of} ({low:.2f} to {high:.2f})"


def to_json(report: QualityReport) -> dict[str, Any]:
    """Return all scores as a JSON object."""

    def shown(own: QualityShare) -> dict[str, Any]:
        return asdict(own) | {"share": own.share, "interval": own.interval}

    return {
        "routing": {kind: shown(own) for kind, own in report.routing.items()},
        "voices": [
            asdict(score) | {"fidelity": shown(score.fidelity), "identity": shown(score.identity)}
            for score in report.scores
        ],
        "wrong_adapter": [asdict(cost) for cost in report.costs],
    }


if __name__ == "__main__":
    sys.exit(main())
