"""Make a data set from seed prompts: let the teacher paraphrase the seeds and answer all prompts, then filter
the answers.

The questions depend on the seeds, the options and earlier answers, never on the order in which answers
arrive. So a run that was killed continues with the missing questions only. It ends with the same data set if
the teacher's answers depend only on the question and its random seed.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.datasets.index import whole_text
from adapters.distillation.concurrent import Stop
from adapters.distillation.dedup import Deduplicator
from adapters.distillation.filter_counts import FilterCounts
from adapters.distillation.filters import PARAPHRASE_FILTERS, Candidate, Rules, fault
from adapters.distillation.journal import AnswerJournal, open_journal
from adapters.distillation.judging import LONGEST, grade, judge_key, judge_prompt
from adapters.distillation.options import DistillOptions
from adapters.distillation.output import AcceptedExample, DistillResult, write
from adapters.distillation.requester import Requester
from adapters.distillation.seeds import SeedPrompt, paraphrase_prompt, read_seeds, seed_of
from adapters.distillation.teacher import Teacher, TeacherQuestion
from adapters.evaluation.judge import LanguageOf
from adapters.training.finetune.conversations import files_digest
from adapters.training.loop.progress import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillTask:
    """The inputs of a distillation run: options, language, random seed, seed files and output folder."""

    options: DistillOptions
    language: str
    seed: int
    seeds: tuple[Path, ...]
    output: Path
    """Output folder for the journal, the data set and the report."""
    questions: tuple[str, ...] = ()
    """Questions with which the student model is evaluated. Seeds and paraphrases that are similar to one of
    these questions are left out.
    """

    def asked(self, teacher: Teacher, judge: Teacher | None) -> dict[str, Any]:
        """Return the values that decide which questions are sent, and to which teacher. The filters' options
        are not among them, so you may change these when you continue a run.
        """
        options = self.options
        return {
            "teacher": dict(teacher.identity),
            "judge": dict(judge.identity) if judge is not None else None,
            "language": self.language,
            "seeds": files_digest(self.seeds),
            "paraphrases": options.paraphrases,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_tokens": options.max_tokens,
            "seed": self.seed,
        }


def make_dataset(
    task: DistillTask,
    teacher: Teacher,
    judge: Teacher | None,
    language_of: LanguageOf,
    reporter: Reporter,
    stop: Stop,
) -> DistillResult:
    """Make the data set of `task` in its output folder. If the folder holds a journal, continue from its
    answers.

    Raises `OptionError` if the seeds or options do not fit, `JournalError` if the journal cannot be used, and
    `InterruptedRunError` after `stop`. Raises `EndpointError` or `TeacherError` if the teacher fails for
    good. Answers that arrived before stay in the journal.
    """
    asked = task.asked(teacher, judge)
    with open_journal(task.output, asked) as journal:
        run = _DistillRun(task, teacher, judge, language_of, reporter, journal, stop)
        prompts = run.prompts()
        kept = run.examples(prompts)
        found = DistillResult(
            folder=task.output,
            asked=asked,
            examples=tuple(kept),
            wanted=task.options.examples,
            paraphrases=run.paraphrases,
            answers=run.answers,
            seeds=run.seeds,
            sent=run.teacher.sent + (run.judge.sent if run.judge is not None else 0),
            refused=len(run.teacher.refused),
            fingerprints=tuple(journal.fingerprints),
        )
        write(found, task.language, task.options, language_of)
        return found


class _DistillRun:
    """A distillation run in progress, with its open journal of answers."""

    def __init__(
        self,
        task: DistillTask,
        teacher: Teacher,
        judge: Teacher | None,
        language_of: LanguageOf,
        reporter: Reporter,
        journal: AnswerJournal,
        stop: Stop,
    ) -> None:
        self.task, self.options, self.reporter = task, task.options, reporter
        self.rules = Rules(task.language, language_of, task.options)
        self.teacher = Requester(teacher, journal, stop)
        self.judge = Requester(judge, journal, stop) if judge is not None else None
        self.paraphrases, self.answers = FilterCounts(), FilterCounts()
        self.seeds = 0
        self._known = Deduplicator(task.options.near)

    def prompts(self) -> list[SeedPrompt]:
        """Return the prompts to answer: the seeds, and their paraphrases that pass the filters. Their order
        depends on the random seed of the run.
        """
        read, foreign = read_seeds(self.task.seeds, self.task.language, self.rules.language_of)
        held_out = Deduplicator(self.options.near)
        for question in self.task.questions:
            held_out.add(question)
        seeds = [one for one in read if not held_out.repeats(one.text)]
        self.seeds = len(seeds)
        self.reporter.print_event(
            "seeds", prompts=len(seeds), in_another_language=foreign, held_out=len(read) - len(seeds)
        )
        asked = self._paraphrase_questions(seeds)
        self._ask(self.teacher, "paraphrases", [question for _, question in asked])
        taken = Deduplicator(self.options.near)
        for seed in seeds:
            taken.add(seed.text)
        found = [*seeds, *self._paraphrase(asked, taken, held_out)]
        if asked:
            counts = dict(self.paraphrases.dropped)
            self.reporter.print_event(
                "paraphrased", asked=len(asked), kept=len(found) - len(seeds), dropped=counts
            )
        return sorted(found, key=lambda one: hashlib.sha256(f"{self.task.seed}/{one.text}".encode()).digest())

    def _paraphrase_questions(self, seeds: Sequence[SeedPrompt]) -> list[tuple[SeedPrompt, TeacherQuestion]]:
        each = self.options.paraphrases if self.options.temperature > 0 else min(1, self.options.paraphrases)
        return [
            (
                SeedPrompt(seed.text, seed.source, number + 1),
                self._question(
                    f"paraphrase/{seed.key}/{number}", paraphrase_prompt(seed.text, self.task.language)
                ),
            )
            for number in range(each)
            for seed in seeds
        ]

    def _paraphrase(
        self, asked: Iterable[tuple[SeedPrompt, TeacherQuestion]], taken: Deduplicator, held_out: Deduplicator
    ) -> Iterator[SeedPrompt]:
        tally = self.paraphrases
        for seed, question in asked:
            tally.asked += 1
            said = self.teacher.answer(question)
            text = said.text.strip().strip('"”').strip() if said is not None else ""
            reason = "refused by the server"
            if said is not None:
                candidate = Candidate(seed.text, text, said.ended)
                reason = fault(candidate, self.rules, PARAPHRASE_FILTERS)
                reason = reason or ("held out" if held_out.repeats(text) else None)
                reason = reason or ("duplicate" if taken.repeats(text) else None)
            if reason is not None:
                tally.drop(reason, seed.text, text)
                continue
            tally.kept += 1
            taken.add(text)
            yield SeedPrompt(text, seed.source, seed.paraphrase)

    def examples(self, prompts: Sequence[SeedPrompt]) -> list[AcceptedExample]:
        """Let the teacher answer `prompts` and filter the answers, until there are enough examples or the
        limit of questions is reached.
        """
        kept: list[AcceptedExample] = []
        rounds = itertools.count() if self.options.temperature > 0 else range(1)
        plan = ((number, prompt) for number in rounds for prompt in prompts)
        left = self.options.most_asked
        while len(kept) < self.options.examples and left:
            many = min(left, max(self.options.examples - len(kept), self.options.concurrency))
            wave = list(itertools.islice(plan, many))
            if not wave:
                break
            left -= len(wave)
            kept += self._judge(self._sift(wave))
            self.answers.kept = len(kept)
            dropped = dict(self.answers.dropped.most_common())
            self.reporter.print_event(
                "kept",
                examples=len(kept),
                of=self.options.examples,
                asked=self.answers.asked,
                dropped=dropped,
            )
        return kept

    def _sift(self, wave: Sequence[tuple[int, SeedPrompt]]) -> list[AcceptedExample]:
        """Let the teacher answer `wave`, the next group of prompts, and return the examples whose answers
        pass every filter.
        """
        asked = [
            (number, prompt, self._question(f"answer/{prompt.key}/{number}", prompt.text))
            for number, prompt in wave
        ]
        self._ask(self.teacher, "answers", [question for _, _, question in asked])
        passed: list[AcceptedExample] = []
        for _, prompt, question in asked:
            self.answers.asked += 1
            said = self.teacher.answer(question)
            if said is None:
                self.answers.drop("refused by the server", prompt.text, self.teacher.refused[question.key])
                continue
            reason = fault(Candidate(prompt.text, said.text, said.ended), self.rules)
            text = whole_text(prompt.text, said.text)
            if reason is None and self._known.repeats(text):
                reason = "duplicate"
            if reason is not None:
                self.answers.drop(reason, prompt.text, said.text)
                continue
            self._known.add(text)
            passed.append(AcceptedExample(prompt, question, said))
        return passed

    def _judge(self, passed: Sequence[AcceptedExample]) -> list[AcceptedExample]:
        """Return the examples that get at least the lowest allowed grade from the judge. Without a judge,
        return all.
        """
        if self.judge is None:
            return list(passed)
        asked = [(one, self._judge_question(one)) for one in passed]
        self._ask(self.judge, "judging", [question for _, question in asked])
        found: list[AcceptedExample] = []
        for one, question in asked:
            said = self.judge.answer(question)
            score = grade(said.text) if said is not None else None
            if score is None:
                self.answers.drop(
                    "unreadable to judge", one.prompt.text, said.text if said is not None else ""
                )
            elif score < self.options.least_score:
                self.answers.drop("judge", one.prompt.text, one.said.text)
            else:
                found.append(AcceptedExample(one.prompt, one.question, one.said, score))
        return found

    def _judge_question(self, one: AcceptedExample) -> TeacherQuestion:
        prompt, answer = one.prompt.text, one.said.text
        return TeacherQuestion(
            key=judge_key(prompt, answer),
            text=judge_prompt(prompt, answer, self.task.language),
            longest=LONGEST,
            temperature=0.0,
            top_p=1.0,
            seed=0,
        )

    def _question(self, key: str, text: str) -> TeacherQuestion:
        return TeacherQuestion(
            key=key,
            text=text,
            longest=self.options.max_tokens,
            temperature=self.options.temperature,
            top_p=self.options.top_p,
            seed=seed_of(self.task.seed, key),
        )

    def _ask(self, asking: Requester, name: str, questions: Sequence[TeacherQuestion]) -> None:
        """Send `questions` to the teacher or the judge, through the requester `asking`, and show the
        progress.
        """
        if not questions:
            return
        with self.reporter.stage(name, len(questions)) as stage:
            for done in asking.ask(questions):
                stage.step(done)
