"""Result of an evaluation: identity score and language fidelity of the base and of an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.evaluation.interval import Interval, paired_difference, wilson
from adapters.evaluation.judge import LanguageOf, is_identity_answer


@dataclass(frozen=True, slots=True)
class IdentityReport:
    """The judged answers of one adapter, or of the base, to the identity questions of one language."""

    name: str
    language: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    identity: tuple[bool, ...]
    """For each question, True if the answer is well written and speaks of itself as OneSeek."""
    fidelity: tuple[bool, ...]
    """For each question, True if the answer is in the question's language."""
    version: str | None = None
    """Full name of the version that answered, if the server reports it."""
    base: str | None = None
    """Name of the base that was measured, alone or with an adapter. None if there is only one base."""

    @property
    def identity_score(self) -> float:
        """Share of answers that speak of themselves as OneSeek, from 0 to 1."""
        return _share(self.identity)

    @property
    def language_fidelity(self) -> float:
        """Share of answers in the question's language, from 0 to 1."""
        return _share(self.fidelity)

    def to_json(self, base: IdentityReport | None = None) -> dict[str, Any]:
        """Return the report as JSON. With `base`, also the change against it."""
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
    """Judge the answers of `name`, one for each question."""
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
    """Return the base's answers to the same questions. None for a base itself, which comes before its
    adapters.
    """
    same = (one for one in found if one.language == measured.language)
    base = next(one for one in same if measured.base in (None, one.name))
    return None if base is measured else base


def format_score(passed: Sequence[bool]) -> str:
    """Format a score, such as `27/30 = 0.90 [0.74, 0.97]`."""
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
