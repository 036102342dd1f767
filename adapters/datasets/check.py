"""Check JSONL data sets and report each problem with its file and line. Memory use is about 190 bytes for
each example.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from adapters.datasets import NEAR
from adapters.datasets.example import Example, ExampleError, read_example
from adapters.datasets.index import Index, Repeat, whole_text
from adapters.datasets.lines import MAX_LINE_BYTES, FileFormError, iterate_lines, line_at
from adapters.errors import FileRefusedError

ProblemKind = Literal[
    "json", "fields", "too-long", "language", "duplicate", "near-duplicate", "leak", "near-leak", "empty"
]
Detect = Callable[[str], str | None]
"""A function that returns the language code of a text, or None if the language is not clear."""
TOLD_BY = 300
"""Number of characters at the beginning of an answer that are used to detect its language."""


class DataChangedError(FileRefusedError):
    """A data set file changed while the check was reading it, so the check cannot finish."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in a data set: its file, line, kind and reason."""

    path: Path
    line: int
    """Line number, counted from 1. It is 0 if the problem concerns the whole file."""
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.kind}: {self.reason}"


@dataclass(slots=True)
class Summary:
    """Summary of a data set check: the number of files, of examples, and of problems of each kind."""

    files: int = 0
    examples: int = 0
    """Number of lines that were read as valid examples."""
    problems: Counter[ProblemKind] = field(default_factory=Counter["ProblemKind"])

    @property
    def clean(self) -> bool:
        """True if the check found no problems."""
        return not self.problems


class Check:
    """A single check of training files and, optionally, test files. `summary` is complete once the iterator
    returned by `problems` is exhausted.
    """

    def __init__(
        self,
        training: Sequence[Path],
        tests: Sequence[Path] = (),
        *,
        languages: Collection[str] = (),
        detect: Detect | None = None,
        near: float = NEAR,
    ) -> None:
        """Prepare a check of the files `training` and `tests`.

        Answers must be in one of `languages`; an example's own `language` field overrides this. Without
        `detect`, the language of answers is not checked. Raises `ValueError` unless 0 < `near` <= 1 and
        `training` names at least one file.
        """
        if not 0 < near <= 1:
            raise ValueError(
                f"the option near is {near:g}; give a similarity above 0 and at most 1, such as {NEAR}"
            )
        if not training:
            raise ValueError("the list of training files is empty; name at least one data set file to check")
        self._paths = (*training, *tests)
        self._training = len(training)
        self._languages, self._detect, self._near = frozenset(languages), detect, near
        self._index = Index()
        self._files, self._numbers, self._starts = array("I"), array("Q"), array("Q")
        self.summary = Summary()

    @property
    def size(self) -> int:
        """Total size in bytes of all files to check. Raises `OSError` if a file cannot be read."""
        return sum(path.stat().st_size for path in self._paths)

    def problems(self, progress: Callable[[int], object] = lambda done: None) -> Iterator[Problem]:
        """Yield every problem: first those within single lines, then examples that repeat earlier ones, each
        group in file order.

        `progress` is called with the number of bytes read so far. Raises `OSError` if a file cannot be read,
        and `DataChangedError` if a file changes during the check.
        """
        for problem in self._all(progress):
            self.summary.problems[problem.kind] += 1
            yield problem

    def _all(self, progress: Callable[[int], object]) -> Iterator[Problem]:
        before = 0
        for number, path in enumerate(self._paths):
            self.summary.files += 1
            met = self.summary.examples
            try:
                yield from self._within(number, path, before, progress)
            except FileFormError as error:
                yield Problem(path, 0, "json", f"{error.reason}. {error.remedy}")
            before += path.stat().st_size
            if self.summary.examples == met:
                yield Problem(path, 0, "empty", "the file does not hold any valid example")
        yield from self._between()

    def _within(
        self, number: int, path: Path, before: int, progress: Callable[[int], object]
    ) -> Iterator[Problem]:
        for line in iterate_lines(path):
            progress(before + line.end)
            if line.data is None:
                yield Problem(path, line.number, "too-long", f"the line has more than {MAX_LINE_BYTES} bytes")
                continue
            try:
                example = read_example(line.data, path)
            except ExampleError as problem:
                yield Problem(path, line.number, problem.kind, str(problem))
                continue
            self.summary.examples += 1
            self._index.add(example.prompt, example.answer, test=number >= self._training)
            self._files.append(number)
            self._numbers.append(line.number)
            self._starts.append(line.start)
            if (reason := self._foreign(example)) is not None:
                yield Problem(path, line.number, "language", reason)

    def _foreign(self, example: Example) -> str | None:
        wanted = {example.language} if example.language else self._languages
        if self._detect is None or not wanted:
            return None
        found = self._detect(example.answer[:TOLD_BY])
        if found is None or found in wanted:
            return None
        told = "another language" if found == "xx" else found
        return f"the answer is in {told}, not {' or '.join(sorted(wanted))}"

    def _between(self) -> Iterator[Problem]:
        with ExitStack() as stack:
            opened = [stack.enter_context(path.open("rb")) for path in self._paths]
            for repeat in self._index.repeats(self._near, lambda row: self._text(opened, row)):
                path = self._paths[self._files[repeat.row]]
                yield Problem(path, self._numbers[repeat.row], *self._describe(repeat))

    def _text(self, opened: Sequence[BinaryIO], row: int) -> str:
        number = self._files[row]
        try:
            example = read_example(line_at(opened[number], self._starts[row]), self._paths[number])
        except ExampleError:
            path, remedy = self._paths[number], "Check the data set again when no program writes to it."
            raise DataChangedError(path, "the data set changed while it was read", remedy) from None
        return whole_text(example.prompt, example.answer)

    def _describe(self, repeat: Repeat) -> tuple[ProblemKind, str]:
        place = f"{self._paths[self._files[repeat.earlier]]}:{self._numbers[repeat.earlier]}"
        if repeat.similarity == 1.0:
            if repeat.leak:
                return "leak", f"the prompt is also in the training data, at {place}"
            return "duplicate", f"the example is the same as {place}"
        alike = f"{int(repeat.similarity * 100)}% alike"
        if repeat.leak:
            return (
                "near-leak",
                f"the example is nearly the same as an example in the training data, {place} ({alike})",
            )
        return "near-duplicate", f"the example is nearly the same as {place} ({alike})"
