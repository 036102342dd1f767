"""The two sides of `oneseek bench compare`. A side is a running server, a server to start, a commit, a
checkout or a report.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cli.options import BenchMistakeError
from bench.cli.server import OpenTarget, ServerChoice, running, start_options
from bench.contenders.launch import ADMIN_KEY, CONTENDERS, ROOT
from bench.contenders.start import started
from bench.figures.compared import RoundFigures, round_figures
from bench.report.read import read_report
from bench.scenarios.scenario import ServingScenario
from bench.suite.rounds import SHARE
from bench.target.http import Endpoint
from bench.target.probe import probe

COMMIT = "commit:"
FORMS = f"a URL, a report.json, commit:REF, a checkout's folder, or one of {', '.join(CONTENDERS)}"


def is_report(text: str) -> bool:
    """True if `text` is the path of a report."""
    return text.endswith(".json")


def read_rounds(path: Path, scenario: str) -> tuple[str, list[RoundFigures]]:
    """Return the label of the load, and the figures of each run of `scenario` in the report at `path`. Raises
    `BenchMistakeError` if the report lacks the scenario, has several loads, or a request failed.
    """
    try:
        report = read_report(path)
    except (OSError, ValueError) as error:
        raise BenchMistakeError(f"the report {path} cannot be read: {error}") from None
    found = [entry for entry in report["scenarios"] if entry["name"] == scenario]
    if not found:
        names = ", ".join(dict.fromkeys(entry["name"] for entry in report["scenarios"]))
        raise BenchMistakeError(
            f"the report {path} lacks the scenario {scenario!r}; use --scenario with one of {names}"
        )
    if any(entry["failed"] for entry in found):
        raise BenchMistakeError(
            f"the report {path} has failed requests in the scenario {scenario!r}; measure it again"
        )
    loads = list(dict.fromkeys(entry["load"]["label"] for entry in found))
    if len(loads) > 1:
        raise BenchMistakeError(
            f"the report {path} has the scenario {scenario!r} under several loads ({'; '.join(loads)}); "
            "measure one load with oneseek bench run --rounds 7"
        )
    return loads[0], [_round(entry) for entry in found]


def _round(entry: dict[str, Any]) -> RoundFigures:
    share = entry.get(SHARE)
    return {**round_figures(entry["figures"]["total"]), **({} if share is None else {SHARE: share})}


def contender_of(text: str) -> str:
    """Return the name of the server to start for a side of a comparison. Empty for a running server or a
    report.
    """
    if is_url(text) or is_report(text):
        return ""
    return text if text in CONTENDERS else "oneseek"


def is_url(text: str) -> bool:
    """True if `text` is the address of a running server."""
    return text.startswith(("http://", "https://"))


@contextmanager
def opened_side(
    text: str, label: str, choice: ServerChoice, scenario: ServingScenario
) -> Generator[OpenTarget]:
    """Yield the server that `text` describes, and start it if needed. Raises `BenchMistakeError` if `text`
    has no known form.
    """
    if is_url(text):
        yield running(choice, text)
        return
    folder = Path(text)
    if text.startswith(COMMIT):
        with (
            checked_out(text.removeprefix(COMMIT), choice.work / f"checkout-{label}") as checkout,
            _one(text, label, choice, scenario, checkout) as side,
        ):
            yield side
    elif text in CONTENDERS:
        with _one(text, label, choice, scenario, ROOT) as side:
            yield side
    elif (folder / "server" / "__main__.py").is_file():
        with _one(text, label, choice, scenario, folder.resolve()) as side:
            yield side
    else:
        raise BenchMistakeError(
            f"{text!r} is not a server, a commit or a report that can be compared; use {FORMS}"
        )


@contextmanager
def _one(
    text: str, label: str, choice: ServerChoice, scenario: ServingScenario, checkout: Path
) -> Generator[OpenTarget]:
    name = contender_of(text)
    options, paths = start_options(choice, name, (scenario,))
    with started(name, replace(options, label=label, checkout=checkout)) as server:
        yield OpenTarget(probe(Endpoint(server.url), choice.languages), ADMIN_KEY, paths)


@contextmanager
def checked_out(reference: str, folder: Path) -> Generator[Path]:
    """Unpack the files of a commit of this repository into `folder`, and remove them when the `with` block
    ends. Raises `BenchMistakeError` if the commit does not exist.
    """
    made = subprocess.run(["git", "-C", str(ROOT), "archive", reference], capture_output=True, check=False)
    if made.returncode:
        why = made.stderr.decode(errors="replace").strip().splitlines() or ["git failed"]
        raise BenchMistakeError(f"the files of the commit {reference!r} cannot be unpacked: {why[-1]}")
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
