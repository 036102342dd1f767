"""Asks a teacher what the journal does not hold yet, and counts what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adapters.distillation.concurrent import Stop
from adapters.distillation.journal import AnswerJournal
from adapters.distillation.teacher import Teacher, TeacherQuestion, TeacherRefusal
from adapters.evaluation.endpoint import EndpointAnswer, EndpointError

_IN_A_ROW = 8


class InterruptedRunError(Exception):
    """Someone asked to stop; every answer that came is kept."""


@dataclass(slots=True)
class Requester:
    """A teacher beside its journal."""

    teacher: Teacher
    journal: AnswerJournal
    stop: Stop
    sent: int = 0
    """Answers that came in this run, not from the journal."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Key of a question that the server did not take → what it said."""

    def ask(self, questions: Sequence[TeacherQuestion]) -> Iterator[int]:
        """Ask what is missing, and tell after each answer how many of `questions` have one.

        Raises `InterruptedRunError`, `EndpointError`, and `TeacherError`; whatever was answered is kept.
        """
        unique = list({question.key: question for question in questions}.values())
        missing = [one for one in unique if one.key not in self.refused and self.journal.get(one.key) is None]
        done = len(unique) - len(missing)
        in_a_row = 0
        for question, answer in self.teacher.answers(missing, self.stop):
            if isinstance(answer, TeacherRefusal):
                self.refused[question.key] = answer.reason
                in_a_row += 1
                if in_a_row == _IN_A_ROW or (in_a_row == len(missing) and not len(self.journal)):
                    raise EndpointError(f"the teacher took none of {in_a_row} requests; {answer.reason}")
            else:
                in_a_row = 0
                self.journal.add(question.key, answer)
                self.sent += 1
            done += 1
            yield done
        if self.stop.is_set() and done < len(unique):
            raise InterruptedRunError

    def answer(self, question: TeacherQuestion) -> EndpointAnswer | None:
        """The answer to `question`; None where the server refused it."""
        return self.journal.get(question.key)
