"""A journal of the teacher's answers: an append-only file, so that no question is sent twice.

The first line records the teacher, the options and the seeds of the run; a folder holds the journal of one
run. Each further line holds one answer and the key of its question, and is flushed to disk before the answer
counts. If the process is killed, at most the last line is incomplete. It is cut off when the journal is
opened again.
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
    """The run cannot use the journal of answers in its output folder. The message says why, and
    what to do.
    """


class AnswerJournal:
    """The teacher's stored answers in one output folder, found by the key of the question. Create it with
    `open_journal`.
    """

    def __init__(self, file: BinaryIO, answers: dict[str, EndpointAnswer]) -> None:
        self._file = file
        self._answers = answers

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> EndpointAnswer | None:
        """Return the stored answer to the question with this `key`. None if it has no answer yet."""
        return self._answers.get(key)

    def add(self, key: str, said: EndpointAnswer) -> None:
        """Store the answer `said` to the question with this `key`. It is flushed to disk before the method
        returns.
        """
        line = json.dumps({"key": key, **_answer_to_json(said)}, ensure_ascii=True) + "\n"
        _append(self._file, line.encode())
        self._answers[key] = said

    @property
    def fingerprints(self) -> list[str]:
        """All values of `system_fingerprint` in the teacher's answers, sorted. Answers of the judge are left
        out.
        """
        own = (said for key, said in self._answers.items() if not key.startswith(JUDGED))
        return sorted({said.fingerprint for said in own if said.fingerprint})


@contextmanager
def open_journal(folder: Path, asked: Mapping[str, Any]) -> Generator[AnswerJournal]:
    """Open the journal of answers in `folder`, or create it. `asked` holds every value that decides which
    questions are sent, and to which teacher.

    Raises `OptionError` that names the first differing value if the folder belongs to a run with other
    values. Raises `JournalError` if the journal is unreadable or in use by another process, and `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise JournalError(f"another process is making a data set in {folder}; wait until it ends") from None
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
    """Append `line` to the journal and flush it to disk. If that fails, for example on a full disk, remove
    the partly written line.
    """
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
    """Read all answers in the journal `path` by key, and cut off an incomplete last line. Return None if the
    file does not hold a complete line.
    """
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
        raise JournalError(
            f"{path} is not a journal of teacher answers ({error}); use another output folder"
        ) from error
    now: dict[str, Any] = json.loads(json.dumps(dict(asked)))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            then, given = _format_value(before.get(name)), _format_value(now.get(name))
            problem = f"the run in {path.parent} was begun with {then}, not {given}"
            raise OptionError(name, f"{problem}; give that run's value, or name another output folder")
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
