"""Implements `oneseek eval`, which measures whether adapters answer questions about their identity
correctly.
"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from server.cli.flags import Json
from server.config.settings import ResolvedSettings
from server.config.values import SettingsError

if TYPE_CHECKING:
    from adapters.evaluation.report import IdentityReport


def evaluate(
    resolved: ResolvedSettings,
    *,
    adapter: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    language: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    questions: Path | None = None,
    url: str | None = None,
    answers: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    record: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Json = False,
) -> int:
    """Measure identity and language fidelity of adapters, compared with the base, with 95% intervals.

    Asks each adapter and the base the same questions, with greedy decoding. None of the questions is in
    OneSeek's training data. Without --url, starts the engine in this process, as `oneseek serve` would.

    Parameters
    ----------
    adapter
        An alias or alias@version. Default: every alias.
    language
        Language of the questions. Default: en and sv. Other languages need --questions.
    questions
        File of questions in the given --language: a .txt with one per line, a JSON list, or a data set.
    url
        A running server, such as http://127.0.0.1:8000. Its API key is the first one in the setting api_keys.
    answers
        Print every answer too.
    record
        Add the results to the ledger, an entry for each adapter. Not with --url, since the weights behind a
        URL are unknown.
    """
    from server.jobs.evaluation import evaluate_adapters as measure_all
    from server.jobs.evaluation import note

    if record and url is not None:
        raise SettingsError(
            "record",
            "cannot be combined with --url: another server has a ledger of its own; remove one of the two",
        )
    found = measure_all(resolved.settings, url, adapter or (), language or (), questions)
    if record:
        note(resolved.settings, found)
    if json:
        print(json_format.dumps(_reports_to_json(found, answers), indent=2, ensure_ascii=False))
        return 0
    _print_table(found)
    if answers:
        for measured in found:
            _print_answers(measured)
    return 0


def _reports_to_json(found: list[IdentityReport], answers: bool) -> dict[str, Any]:
    from adapters.evaluation.report import base_of

    rows: list[dict[str, Any]] = []
    for measured in found:
        row = measured.to_json(base_of(found, measured))
        if answers:
            row["answers"] = dict(zip(measured.questions, measured.answers, strict=True))
        rows.append(row)
    return {"measured": rows}


def _print_table(found: list[IdentityReport]) -> None:
    from adapters.evaluation.report import base_of, format_score

    rows = [("model", "questions", "identity [95%]", "language fidelity [95%]", "identity over base [95%]")]
    for measured in found:
        change = measured.to_json(base_of(found, measured)).get("against_base", {}).get("identity")
        over = "{:+.2f} [{:+.2f}, {:+.2f}]".format(change["change"], *change["interval"]) if change else ""
        rows.append(
            (
                measured.version or measured.name,
                measured.language,
                format_score(measured.identity),
                format_score(measured.fidelity),
                over,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_answers(measured: IdentityReport) -> None:
    print(f"\n{measured.version or measured.name}, {measured.language}")
    for question, answer, good in zip(measured.questions, measured.answers, measured.identity, strict=True):
        print(f"{'  ok' if good else 'miss'}  {question}\n      {answer}")
