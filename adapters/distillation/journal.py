"""Keeps every answer of the teacher in an append-only file, so that no question is sent twice.

The first line records what is asked and of whom; a folder holds one such run. Each further line is one answer
under its key, flushed to the disk before it counts. A kill leaves at most one torn line at the end, which is
cut off before the file grows again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from adapters.distillation.judging import JUDGED
from adapters.evaluation.endpoint import EndpointAnswer
from adapters.files.atomic import flush_folder
from adapters.files.full import naming
from adapters.training.loop.options import OptionError

FORMAT = "oneseek-distillation-v1"
FILE = "answers.jsonl"
_LOCK = ".lock"


class JournalError(RuntimeError):
    """The journal cannot be continued. The message says what was found and what to do."""


class AnswerJournal:
    """The answers in a folder, by key. Use `open_journal` to get one."""

    def __init__(self, file: BinaryIO, answers: dict[str, EndpointAnswer]) -> None:
        self._file = file
        self._answers = answers

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> EndpointAnswer | None:
        """Return the answer stored under `key`."""
        return self._answers.get(key)

    def add(self, key: str, said: EndpointAnswer) -> None:
        """Store an answer. It is on the disk when this returns."""
        line = json.dumps({"key": key, **_answer_to_json(said)}, ensure_ascii=True) + "\n"
        _append(self._file, line.encode())
        self._answers[key] = said

    @property
    def fingerprints(self) -> list[str]:
        """Every `system_fingerprint` of the teacher that was seen, in order."""
        own = (said for key, said in self._answers.items() if not key.startswith(JUDGED))
        return sorted({said.fingerprint for said in own if said.fingerprint})


@contextmanager
def open_journal(folder: Path, asked: Mapping[str, Any]) -> Generator[AnswerJournal]:
    """Open the journal of `folder`, new or continued. `asked` is everything that decides what is asked and of
    whom.

    Raises `OptionError` naming what differs if the folder holds another run, `JournalError` if it cannot be
    read or another process is using it, and `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise JournalError(f"another process is making a data set in {folder}; wait for it") from None
    try:
        path = folder / FILE
        answers = _read(path, asked) if path.exists() else None
        with path.open("ab", buffering=0) as file:
            if answers is None:
                _append(file, json.dumps({"format": FORMAT, "asked": dict(asked)}).encode() + b"\n")
                flush_folder(folder)
            yield AnswerJournal(file, answers or {})
    finally:
        lock.release()


def _append(file: BinaryIO, line: bytes) -> None:
    """Append `line` and flush it. Take back a partly written line, for example on a full disk."""
    before = os.fstat(file.fileno()).st_size
    left = memoryview(line)
    with naming(Path(file.name)):
        try:
            while left:
                left = left[file.write(left) or 0 :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def _read(path: Path, asked: Mapping[str, Any]) -> dict[str, EndpointAnswer] | None:
    """Read the file and cut off a torn last line. None if it holds no whole line."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    first, *rest = data[:whole].splitlines() or [b""]
    if not first:
        return None
    try:
        head = json.loads(first)
        if head["format"] != FORMAT:
            raise ValueError(f"has format {head['format']!r}")
        before: dict[str, Any] = head["asked"]
        found = dict(map(_answer, rest))
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(f"{path} is not a journal of answers ({error}); use another folder") from error
    now: dict[str, Any] = json.loads(json.dumps(dict(asked)))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            then, given = _format_value(before.get(name)), _format_value(now.get(name))
            problem = f"{path.parent} was begun with {then}, not {given}"
            raise OptionError(name, f"{problem}; use the same, or another --output")
    return found


def _answer(line: bytes) -> tuple[str, EndpointAnswer]:
    fields: dict[str, Any] = json.loads(line)
    said = EndpointAnswer(
        str(fields["text"]), bool(fields["ended"]), str(fields["model"]), fields.get("fingerprint") or None
    )
    return str(fields["key"]), said


def _answer_to_json(said: EndpointAnswer) -> dict[str, Any]:
    found: dict[str, Any] = {"text": said.text, "ended": said.ended, "model": said.model}
    return {**found, "fingerprint": said.fingerprint} if said.fingerprint else found


def _format_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
