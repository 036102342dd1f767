"""Result of an identity evaluation: how often the base model or an adapter says that it is OneSeek, and how
often it answers in the language of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.evaluation.interval import Interval, paired_difference, wilson
from adapters.evaluation.judge import LanguageOf, is_identity_answer


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """The judged answers of one model, the base or an adapter, to the identity questions in one language."""

    name: str
    language: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    identity: tuple[bool, ...]
    """For each question, True if the answer is well written and says that the model is OneSeek."""
    fidelity: tuple[bool, ...]
    """For each question, True if the answer is in the question's language."""
    version: str | None = None
    """Full name of the adapter version that answered, as the server reports it. None if it does not report
    one.
    """
    base: str | None = None
    """Name of the base model that answered, with or without an adapter. None if the evaluation covers only
    one base model.
    """

    @property
    def identity_score(self) -> float:
        """Proportion of answers that are well written and say that the model is OneSeek, from 0 to 1."""
        return _share(self.identity)

    @property
    def language_fidelity(self) -> float:
        """Proportion of answers that are in the language of the question, from 0 to 1."""
        return _share(self.fidelity)

    def to_json(self, base: IdentityReport | None = None) -> dict[str, Any]:
        """Return the report as a JSON object. If the base model's report is given as `base`, include how much
        each score differs from the base model's.
        """
        found: dict[str, Any] = {
            "name": self.name,
            "language": self.language,
            "questions": len(self.questions),
            "identity": _score_to_json(self.identity),
            "fidelity": _score_to_json(self.fidelity),
        }
        if self.version is not None:
            found["version"] = self.version
        if base is not None:
            found["against_base"] = {
                "identity": _change(base.identity, self.identity),
                "fidelity": _change(base.fidelity, self.fidelity),
            }
        return found


def judge_answers(
    name: str, language: str, questions: Sequence[str], answers: Sequence[str], language_of: LanguageOf
) -> IdentityReport:
    """Judge `answers`, which the model `name` gave to `questions`, one for each question, and return the
    report.
    """
    pairs = list(zip(questions, answers, strict=True))
    return IdentityReport(
        name,
        language,
        tuple(questions),
        tuple(answers),
        tuple(is_identity_answer(answer, language, language_of) for _, answer in pairs),
        tuple(language_of(answer) == language for _, answer in pairs),
    )


def base_of(found: Sequence[IdentityReport], measured: IdentityReport) -> IdentityReport | None:
    """Return the base model's report, in the same language, with which the report `measured` is compared.
    Return None if `measured` is the base model's own report.

    `found` holds all reports; in it, the report of each base model must precede those of its adapters.
    """
    same = (one for one in found if one.language == measured.language)
    base = next(one for one in same if measured.base in (None, one.name))
    return None if base is measured else base


def format_score(passed: Sequence[bool]) -> str:
    """Format results as a score with its 95% confidence interval, such as `27/30 = 0.90 [0.74, 0.97]`."""
    interval = wilson(sum(passed), len(passed))
    return f"{sum(passed)}/{len(passed)} = {_share(passed):.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _share(passed: Sequence[bool]) -> float:
    return sum(passed) / len(passed) if passed else 0.0


def _score_to_json(passed: Sequence[bool]) -> dict[str, Any]:
    interval = wilson(sum(passed), len(passed))
    return {"passed": sum(passed), "share": round(_share(passed), 4), "interval": _ends(interval)}


def _change(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    interval = paired_difference(before, after)
    return {"change": round(_share(after) - _share(before), 4), "interval": _ends(interval)}


def _ends(interval: Interval) -> list[float]:
    return [round(interval.low, 4), round(interval.high, 4)]
