"""Ask a teacher only what the journal does not hold yet, and count the requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adapters.distillation.concurrent import Stop
from adapters.distillation.journal import AnswerJournal
from adapters.distillation.teacher import Teacher, TeacherQuestion, TeacherRefusal
from adapters.evaluation.endpoint import EndpointAnswer, EndpointError

_IN_A_ROW = 8


class InterruptedRunError(Exception):
    """The user asked to stop. Every answer that arrived is kept."""


@dataclass(slots=True)
class Requester:
    """A teacher together with its journal."""

    teacher: Teacher
    journal: AnswerJournal
    stop: Stop
    sent: int = 0
    """Number of answers that arrived in this run, rather than from the journal."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Maps each key of a question that the server refused to the reason it gave."""

    def ask(self, questions: Sequence[TeacherQuestion]) -> Iterator[int]:
        """Ask the questions without an answer, and report after each how many of `questions` have one.

        Raises `InterruptedRunError`, `EndpointError`, and `TeacherError`. All answers so far are kept.
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
                    raise EndpointError(
                        f"the teacher's server refused all of the last {in_a_row} requests; {answer.reason}"
                    )
            else:
                in_a_row = 0
                self.journal.add(question.key, answer)
                self.sent += 1
            done += 1
            yield done
        if self.stop.is_set() and done < len(unique):
            raise InterruptedRunError

    def answer(self, question: TeacherQuestion) -> EndpointAnswer | None:
        """Return the answer to `question`; None if the server refused it."""
        return self.journal.get(question.key)
