"""Prompts and traces that a user brings: a ShareGPT-style file, and an Azure-style trace of lengths and
times.

ShareGPT: a JSON list, or JSON lines, of objects with `conversations`, a list of `{"from", "value"}`. Azure:
CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, as in the Azure LLM inference traces of
2023 and 2024.
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
    """One request of a trace."""

    at: float
    """Arrival time in seconds after the first request."""
    prompt_tokens: int
    answer_tokens: int


def read_sharegpt(path: Path) -> list[str]:
    """Return the first question of every conversation. Raises `ValueError` if the file has none."""
    found = [text for entry in _entries(path) for text in _first_question(entry)]
    if not found:
        raise ValueError(f"{path}: no conversation begins with a question; give a file in ShareGPT's format")
    return found


def _entries(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                yield json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from None


def _first_question(entry: Any) -> list[str]:
    turns = entry.get("conversations") or entry.get("messages") or [] if isinstance(entry, dict) else []
    for turn in turns[:2]:
        if (turn.get("from") or turn.get("role")) in HUMAN:
            text = str(turn.get("value") or turn.get("content") or "").strip()
            return [text] if text else []
    return []


def read_trace(path: Path) -> list[TraceArrival]:
    """Return every request of the trace in order of time. Raises `ValueError` for a missing column or an
    invalid value.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: column {missing[0]!r} is missing; a trace has {', '.join(COLUMNS)}")
        rows = [_row(path, number, row) for number, row in enumerate(reader, 2)]
    if not rows:
        raise ValueError(f"{path}: the trace does not hold any requests")
    rows.sort()
    start = rows[0][0]
    return [TraceArrival((at - start).total_seconds(), prompt, answer) for at, prompt, answer in rows]


def _row(path: Path, number: int, row: dict[str, str]) -> tuple[datetime, int, int]:
    try:
        # Azure writes seven digits of a second; a datetime holds six.
        at = datetime.fromisoformat(_six_digits(row["TIMESTAMP"].strip()))
        prompt, answer = int(float(row["ContextTokens"])), int(float(row["GeneratedTokens"]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}:{number}: {error}") from None
    if prompt < 1 or answer < 1:
        raise ValueError(f"{path}:{number}: tokens {prompt} and {answer} must be at least 1")
    return at.replace(tzinfo=None), prompt, answer


def _six_digits(stamp: str) -> str:
    whole, dot, rest = stamp.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{whole}{dot}{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}" if dot else stamp
