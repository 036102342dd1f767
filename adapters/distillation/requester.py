"""Send a teacher only the questions that have no answer in the journal, and count the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adapters.distillation.concurrent import Stop
from adapters.distillation.journal import AnswerJournal
from adapters.distillation.teacher import Teacher, TeacherQuestion, TeacherRefusal
from adapters.evaluation.endpoint import EndpointAnswer, EndpointError

_IN_A_ROW = 8


class InterruptedRunError(Exception):
    """The user interrupted the run. Every answer that arrived is stored in the journal."""


@dataclass(slots=True)
class Requester:
    """Sends questions to a teacher and stores its answers in the journal."""

    teacher: Teacher
    journal: AnswerJournal
    stop: Stop
    sent: int = 0
    """Number of answers that the teacher gave in this run, without those read from the journal."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Maps the key of each question that the teacher's server rejected to the server's reason."""

    def ask(self, questions: Sequence[TeacherQuestion]) -> Iterator[int]:
        """Send those of `questions` that have no answer yet. After each answer, yield how many of `questions`
        are done.

        Raises `InterruptedRunError` if the user interrupts the run. Raises `EndpointError` or `TeacherError`
        if the teacher fails for good, or rejects 8 questions in a row. Answers that arrived before stay in
        the journal.
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
                        f"the teacher's server refused the last {in_a_row} requests in a row, so the run "
                        f"stops; its reason: {answer.reason}"
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
        """Return the stored answer to `question`. None if the teacher's server rejected the question."""
        return self.journal.get(question.key)
