"""Implements `oneseek data`, which checks and describes data sets."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from server.cli.flags import Json
from server.config.each_base import default_settings
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from collections.abc import Generator

    from adapters.datasets.check import Problem, Summary
    from adapters.datasets.example import Example
    from adapters.datasets.stats import Stats

_MIB = 1 << 20


def check_data(
    *files: Path,
    language: Annotated[list[str] | None, Parameter(negative="")] = None,
    test: Annotated[list[Path] | None, Parameter(negative="")] = None,
    near: float = 0.8,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Check data sets line by line: bad JSON, wrong or empty fields, duplicates, language, leaks into tests.

    The exit code is 1 if there is a problem. The last line is a summary.

    Parameters
    ----------
    files
        Training data sets in JSON lines: {"instruction", "input", "output"}, {"prompt", "completion"},
        {"messages": [{"role", "content"}]} or ShareGPT's {"conversations": [{"from", "value"}]}. ShareGPT's
        may also have "system", and all forms may have "id", "source" and "language".
    language
        Expected language of the answers, such as sv. Repeat it to allow several.
    test
        Test data set; repeat it for several. It is checked too. Examples that are also in the training data
        are reported.
    near
        Fraction of word triples, from 0 to 1, that two examples must have in common to be near duplicates.
    json
        Print one JSON object per line: each problem, then the summary.
    """
    from adapters.datasets.check import Check
    from server.jobs.languages import language_of_text

    try:
        detect = language_of_text(language or ())
        run = Check(files, test or (), languages=language or (), detect=detect, near=near)
    except ValueError as error:
        raise SettingsError("data check", str(error)) from None
    with _reading(run.size) as progress:
        for problem in run.problems(progress):
            print(json_format.dumps(_problem_to_json(problem), ensure_ascii=False) if json else problem)
    print(_summary_line(run.summary, json=json))
    return 0 if run.summary.clean else 1


def show_stats(
    resolved: ResolvedSettings, file: Path, /, *, languages: bool = True, json: Json = False
) -> int:
    """Show the lengths and languages of a data set's examples.

    Counts tokens in the base's chat template if the settings name a base (--base-model).

    Parameters
    ----------
    file
        A data set in JSON lines.
    languages
        Detect languages, which takes about a millisecond for each example.
    """
    from adapters.datasets.stats import measure_dataset
    from server.jobs.languages import language_of_text

    base = default_settings(resolved.settings).base_model
    count = _token_counter(base) if base is not None else None
    detect = language_of_text() if languages else None
    with _reading(file.stat().st_size) as progress:
        found = measure_dataset(file, detect=detect, count=count, progress=progress)
    if json:
        print(json_format.dumps({**asdict(found), "path": str(file)}, indent=2, ensure_ascii=False))
    else:
        _draw(found)
    return 0


def _token_counter(base: Path) -> Callable[[Example], int]:
    from server.text.tokenizer import TemplateError, Tokenizer

    tokenizer = Tokenizer.load(base)

    def count(example: Example) -> int:
        messages = [{"role": message.role, "content": message.content} for message in example.messages]
        try:
            return len(tokenizer.chat(messages, add_generation_prompt=False))
        except TemplateError:
            return len(tokenizer.encode(f"{example.prompt}\n{example.answer}"))

    return count


@contextmanager
def _reading(size: int) -> Generator[Callable[[int], None]]:
    """Context manager that gives a callback for the number of bytes read. It prints progress for large files
    only.
    """
    from adapters.training.loop.progress import Reporter

    with Reporter().stage("MiB read", size // _MIB) as stage:
        told = 0

        def progress(done: int) -> None:
            nonlocal told
            if done // _MIB > told:
                told = done // _MIB
                stage.step(told)

        yield progress


def _problem_to_json(problem: Problem) -> dict[str, Any]:
    return {
        "file": str(problem.path),
        "line": problem.line,
        "problem": problem.kind,
        "reason": problem.reason,
    }


def _summary_line(summary: Summary, *, json: bool) -> str:
    if json:
        told = {"files": summary.files, "examples": summary.examples, "problems": dict(summary.problems)}
        return json_format.dumps(told)
    files = "1 file" if summary.files == 1 else f"{summary.files} files"
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.problems.items()))
    return f"{summary.examples} examples in {files}: {kinds or 'no problems'}"


def _draw(stats: Stats) -> None:
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table

    console = Console()
    broken = f", {stats.broken} broken (see oneseek data check)" if stats.broken else ""
    console.print(
        f"{stats.path}: {stats.examples} examples in {stats.bytes:,} bytes{broken}", highlight=False
    )

    def histogram(title: str, rows: Iterable[tuple[str, int]]) -> None:
        table = Table("", "", "", box=None, show_header=False, pad_edge=False)
        table.columns[0].justify = table.columns[1].justify = "right"
        counts = list(rows)
        most = max((count for _, count in counts), default=1)
        for label, count in counts:
            table.add_row(label, str(count), Bar(most, 0, count, width=40))
        console.print(f"\n{title}", highlight=False)
        console.print(table)

    for name, found in stats.lengths.items():
        about = (
            f"median {found.median:g}, 95% up to {found.p95:g}, max {found.largest}, total {found.total:,}"
        )
        histogram(f"{name}: {about}", ((_span(bin_.low, bin_.high), bin_.count) for bin_ in found.bins))
    if stats.languages:
        histogram("languages of the answers", stats.languages.items())


def _span(low: int, high: int) -> str:
    return str(low) if high == low + 1 else f"{low} to {high - 1}"
