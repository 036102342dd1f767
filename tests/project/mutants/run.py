"""`make mutants`: take each rule out in a copy of the repository, and run the tests that guard it.

A rule that survives its removal has no test. `python -m tests.project.mutants.run [WORD ...]` tries only the
rules whose names contain one of the words. Exit status: 0 if every rule is guarded, else 1.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project.mutants.rules import ROOT, Rule, read_rules

COPIES = max(1, min(4, os.cpu_count() or 1))
SECONDS = 180.0
"""Longest time for the tests of one rule; a test that hangs without its rule has noticed too."""
LIBRARIES = ("hypothesis", "httpx", "starlette", "uvicorn", "onnxruntime", "llguidance", "jinja2", "torch")
"""What a process has imported when it begins: that takes longer than most tests."""
PROCESSES = (
    multiprocessing.get_context("forkserver")
    if "forkserver" in multiprocessing.get_all_start_methods()
    else multiprocessing.get_context("spawn")
)
TIMES = itertools.count(1)
FAILED, NONE_GIVEN = 1, 5
"""pytest's exit statuses: some tests failed; there were none."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the tests of a rule that was taken out."""

    rule: Rule
    guarded: bool
    said: str
    seconds: float


def copy_repository(folder: Path) -> None:
    """Link every file of the repository into `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)


def run_tests(folder: Path, tests: Sequence[str], seconds: float | None = None) -> tuple[int, str]:
    """pytest's exit status in `folder`, at most `seconds` later, and the last lines of what it said."""
    if not tests:
        return NONE_GIVEN, ""
    said = folder.with_name(f"{folder.name}.txt")
    child = PROCESSES.Process(target=_pytest, args=(folder, tests, said))
    child.start()
    child.join(seconds)
    if child.exitcode is None:
        child.kill()
        child.join()
        return FAILED, f"no end within {seconds:g} s"
    return child.exitcode, "\n".join(said.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


def _pytest(folder: Path, tests: Sequence[str], said: Path) -> None:
    """Run `tests` in this process, which has imported nothing of the repository that they are about."""
    with said.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
    options = ["-q", "-x", "--tb=short", "--without-torch", "-p", "no:cacheprovider"]
    # The libraries are there before pytest is.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = pytest.main([*options, *quiet, *tests])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status))


def try_rule(folder: Path, rule: Rule) -> Verdict:
    """Take `rule` out in `folder`, run its tests, and put it back."""
    began, path = time.monotonic(), folder / rule.file
    original = path.read_text(encoding="utf-8")
    path.unlink()  # the link, not the repository's file
    try:
        _write(path, rule.taken_out(original))
        status, said = run_tests(folder, rule.tests, SECONDS)
    finally:
        _write(path, original)
    return Verdict(rule, status == FAILED, said, time.monotonic() - began)


def _write(path: Path, text: str) -> None:
    """Write `text` with a time that no other has, in whole seconds, by which Python knows its bytecode."""
    path.write_text(text, encoding="utf-8")
    second = next(TIMES)
    os.utime(path, (second, second))


def try_all(rules: Iterable[Rule], folders: Sequence[Path]) -> list[Verdict]:
    """Try every rule, in as many copies as there are `folders`."""
    waiting: queue.SimpleQueue[Rule] = queue.SimpleQueue()
    for rule in rules:
        waiting.put(rule)
    verdicts: list[Verdict] = []

    def work(folder: Path) -> None:
        while True:
            try:
                rule = waiting.get_nowait()
            except queue.Empty:
                return
            verdict = try_rule(folder, rule)
            verdicts.append(verdict)
            outcome = "guarded" if verdict.guarded else "SURVIVES"
            print(f"{outcome:9} {verdict.seconds:5.1f} s  {rule.name}", flush=True)

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return verdicts


def main(words: Sequence[str]) -> int:
    """Try the rules whose names contain one of `words`, or all of them."""
    PROCESSES.set_forkserver_preload(list(LIBRARIES))
    rules = [rule for rule in read_rules() if not words or any(word in rule.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="oneseek-mutants-") as place:
        folders = [Path(place) / str(number) for number in range(COPIES)]
        for folder in folders:
            copy_repository(folder)
        tests = list(dict.fromkeys(test for rule in rules for test in rule.tests))
        with ThreadPoolExecutor(COPIES) as pool:
            parts = [tests[number::COPIES] for number in range(COPIES)]
            ends = list(pool.map(run_tests, folders, parts))
        for status, said in ends:
            if status not in (0, NONE_GIVEN):
                print(f"tests fail although every rule is in place:\n{said}")
                return 1
        verdicts = try_all(rules, folders)
    survivors = [verdict for verdict in verdicts if not verdict.guarded]
    for verdict in survivors:
        print(f"\n{verdict.rule.name}: no test of {', '.join(verdict.rule.tests)} fails\n{verdict.said}")
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} rules are guarded")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
