"""Write the results of a distillation run: the data set, the provenance of each of its lines, and a
report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.datasets.check import Check
from adapters.distillation.filter_counts import FilterCounts
from adapters.distillation.options import DistillOptions
from adapters.distillation.seeds import SeedPrompt
from adapters.distillation.teacher import TeacherQuestion, identity_digest
from adapters.evaluation.endpoint import EndpointAnswer
from adapters.evaluation.judge import LanguageOf
from adapters.files.atomic import write_file
from adapters.training.finetune.conversations import files_digest

DATA, PROVENANCE, REPORT = "data.jsonl", "provenance.jsonl", "report.json"


class UncleanDataError(RuntimeError):
    """`oneseek data check` finds a problem in the data set that the distillation run wrote. This is a bug in
    OneSeek.
    """


@dataclass(frozen=True, slots=True)
class AcceptedExample:
    """An example that passed every filter: the prompt, the request to the teacher, and the answer."""

    prompt: SeedPrompt
    question: TeacherQuestion
    said: EndpointAnswer
    score: int | None = None
    """The judge's grade of the example, from 1 to 5. None if the run has no judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillResult:
    """The result of a distillation run: its examples, and counts for the report."""

    folder: Path
    asked: Mapping[str, Any]
    """The teacher, the judge, the seeds and the options that decide which questions are sent."""
    examples: tuple[AcceptedExample, ...]
    wanted: int
    seeds: int
    """Number of seed prompts, without those too similar to an evaluation question."""
    paraphrases: FilterCounts
    answers: FilterCounts
    sent: int
    """Number of answers by the teacher and the judge in this run, without those read from the journal."""
    refused: int
    """Number of questions that the teacher's server rejected."""
    fingerprints: tuple[str, ...]
    """Values of `system_fingerprint` that the teacher's server sent with its answers. Empty if it
    sends none.
    """

    @property
    def data(self) -> Path:
        """Path of the data set file."""
        return self.folder / DATA

    @property
    def enough(self) -> bool:
        """True if the run made at least as many examples as the user wanted."""
        return len(self.examples) >= self.wanted

    @property
    def teacher(self) -> dict[str, Any]:
        """Identity of the teacher, as written to the report: server address or digest, model name, and system
        fingerprints.
        """
        found = dict(self.asked["teacher"])
        return {**found, "system_fingerprints": list(self.fingerprints)} if self.fingerprints else found

    @property
    def judge_digest(self) -> str | None:
        """Digest that identifies the judge: a hash of a local model's files, or of a server's address and
        model name. None without a judge.
        """
        judge = self.asked["judge"]
        return identity_digest(judge) if judge is not None else None

    @property
    def teacher_digest(self) -> str:
        """Digest that identifies the teacher: `sha256:…` of a local model's files, or a hash of a server's
        address, model name and system fingerprints.
        """
        own = self.asked["teacher"]
        marks = {"system_fingerprints": " ".join(self.fingerprints)} if self.fingerprints else {}
        return identity_digest({**own, **marks})


def write(found: DistillResult, language: str, options: DistillOptions, language_of: LanguageOf) -> None:
    """Write the data set, the provenance of its lines, and the report. Existing files are replaced
    atomically.

    Raises `UncleanDataError` if `oneseek data check` would report a problem in the data set, and `OSError`.
    """
    teacher = str(found.asked["teacher"]["model"])
    _write_lines(found.data, (_row(one, language, teacher) for one in found.examples))
    _write_lines(found.folder / PROVENANCE, (_provenance(one, found.asked) for one in found.examples))
    if found.examples:
        check = Check([found.data], languages=(language,), detect=language_of, near=options.near)
        if (problem := next(check.problems(), None)) is not None:
            raise UncleanDataError(
                f"the new data set has a problem: {problem}; this is a bug in OneSeek, please report it"
            )
    report = {
        "asked": dict(found.asked),
        "options": asdict(options),
        "teacher": found.teacher,
        "seeds": found.seeds,
        "examples": len(found.examples),
        "wanted": found.wanted,
        "data_digest": files_digest([found.data]),
        "paraphrases": found.paraphrases.to_json(),
        "answers": found.answers.to_json(),
        "answered_in_last_run": found.sent,
    }
    write_file(found.folder / REPORT, json.dumps(report, ensure_ascii=False, indent=2) + "\n")


def _row(one: AcceptedExample, language: str, teacher: str) -> dict[str, Any]:
    return {
        "instruction": one.prompt.text,
        "input": "",
        "output": one.said.text.strip(),
        "id": one.question.key,
        "source": f"{teacher}, asked with {one.prompt.source}",
        "language": language,
    }


def _provenance(one: AcceptedExample, asked: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": one.question.key,
        "seed": one.prompt.source,
        "paraphrase": one.prompt.paraphrase,
        "teacher": asked["teacher"],
        "model": one.said.model,
        "system_fingerprint": one.said.fingerprint,
        "sampling": {
            "temperature": one.question.temperature,
            "top_p": one.question.top_p,
            "max_tokens": one.question.longest,
            "seed": one.question.seed,
        },
    }
    return found if one.score is None else {**found, "judge": asked["judge"], "score": one.score}


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
