"""Read prompts and traces that a user provides: a file in ShareGPT's format, or an Azure-style trace of
arrival times and lengths.

A ShareGPT file is a JSON list, or JSON lines, of objects with `conversations`, a list of `{"from", "value"}`.
An Azure trace is a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens, as in the Azure
LLM inference traces of 2023 and 2024.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HUMAN = ("human", "user")
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class TraceArrival:
    """A request in a trace, with its arrival time and its lengths."""

    at: float
    """Arrival time in seconds after the first request of the trace."""
    prompt_tokens: int
    answer_tokens: int


def read_sharegpt(path: Path) -> list[str]:
    """Return the first question of every conversation in a file in ShareGPT's format. Raises `ValueError` if
    the file has no questions.
    """
    found = [text for entry in _entries(path) for text in _first_question(entry)]
    if not found:
        raise ValueError(
            f"{path}: no conversation in this file begins with a user's message; give a file in ShareGPT's "
            "format"
        )
    return found


def _entries(path: Path) -> Iterator[Any]:
    text = _text_of(path)
    if text.lstrip().startswith("["):
        yield from _json_of(text, f"{path}: the file")
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _json_of(line, f"{path}:{number}: the line")


def _text_of(path: Path) -> str:
    """Return the text of a file. Raises `ValueError` if it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the file is not UTF-8 text: {error}") from None


def _json_of(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not JSON: {error}") from None


def _first_question(entry: Any) -> list[str]:
    turns = entry.get("conversations") or entry.get("messages") if isinstance(entry, dict) else None
    for turn in turns[:2] if isinstance(turns, list) else ():
        if isinstance(turn, dict) and (turn.get("from") or turn.get("role")) in HUMAN:
            text = str(turn.get("value") or turn.get("content") or "").strip()
            return [text] if text else []
    return []


def read_trace(path: Path) -> list[TraceArrival]:
    """Return all requests of an Azure-style trace in order of arrival. Raises `ValueError` if a column is
    missing or a value is invalid.
    """
    reader = csv.DictReader(_text_of(path).splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"the trace {path} lacks the column {missing[0]!r}; it must have the columns {', '.join(COLUMNS)}"
        )
    rows = [_row(path, number, row) for number, row in enumerate(reader, 2)]
    if not rows:
        raise ValueError(f"the trace {path} does not hold any requests; give a trace with at least one")
    rows.sort()
    start = rows[0][0]
    return [TraceArrival((at - start).total_seconds(), prompt, answer) for at, prompt, answer in rows]


def _row(path: Path, number: int, row: dict[str, str]) -> tuple[datetime, int, int]:
    try:
        # Azure writes seven digits of a second; a datetime holds six.
        at = datetime.fromisoformat(_six_digits(row["TIMESTAMP"].strip()))
        prompt, answer = int(float(row["ContextTokens"])), int(float(row["GeneratedTokens"]))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}:{number}: the row has an invalid value: {error}") from None
    if prompt < 1 or answer < 1:
        raise ValueError(
            f"{path}:{number}: ContextTokens {prompt} and GeneratedTokens {answer} must be at least 1"
        )
    return at.replace(tzinfo=None), prompt, answer


def _six_digits(stamp: str) -> str:
    whole, dot, rest = stamp.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{whole}{dot}{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}" if dot else stamp
