"""The teacher whose answers make the data set: a server with OpenAI's API, or a local model in a child
process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from adapters.distillation.concurrent import Stop, side_by_side
from adapters.errors import BaseModelError
from adapters.evaluation.endpoint import EndpointAnswer, EndpointError, ModelEndpoint
from adapters.files.jsonfile import canonical_json
from adapters.lora.digest import base_digest
from adapters.training.loop.options import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherQuestion:
    """One request to a teacher: a prompt and its sampling parameters."""

    key: str
    """Key under which the journal stores the answer to this question."""
    text: str
    longest: int
    """Maximum number of tokens of the answer."""
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class TeacherRefusal:
    """The teacher's server rejected a question, for example because the prompt is too long or filtered.
    `reason` is the server's message.
    """

    reason: str


TeacherAnswer = EndpointAnswer | TeacherRefusal


class Teacher(Protocol):
    """A model that answers questions, several at a time: on a server, or in a child process."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What identifies the teacher in the records: the server's address without credentials and the model,
        or the model's name and file digest.
        """
        ...

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """Yield each question with its answer as answers arrive, in any order. After `stop` is set, yield
        only the answers to requests that were already sent.

        Raises `EndpointError` or `TeacherError` if the teacher fails for good. Answers yielded before stay
        valid.
        """
        ...

    def close(self) -> None:
        """Release the teacher's resources, such as its child process."""
        ...


class TeacherError(RuntimeError):
    """The process of a local teacher model ended without an answer. The message holds its last line of
    output.
    """


def identity_digest(identity: Mapping[str, str]) -> str:
    """Return a digest, `sha256:…`, of a teacher or judge: of a local model's files, or of a server's address
    and model name.
    """
    found = identity.get("digest")
    return found or f"sha256:{hashlib.sha256(canonical_json(dict(identity))).hexdigest()}"


@dataclass(frozen=True, slots=True)
class RemoteTeacher:
    """A teacher model on a server with OpenAI's API."""

    endpoint: ModelEndpoint
    model: str
    concurrency: int
    retries: int

    @property
    def identity(self) -> Mapping[str, str]:
        """Address of the teacher's server (`url`) and name of the model (`model`)."""
        return {"url": self.endpoint.url, "model": self.model}

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """Yield each question with its answer as answers arrive, with up to `concurrency` requests
        in flight.
        """
        return side_by_side(self._ask, questions, self.concurrency, stop, retries=self.retries)

    def close(self) -> None:
        """Do nothing, because a remote teacher holds no resources."""

    def _ask(self, question: TeacherQuestion) -> TeacherAnswer:
        sampling = {"temperature": question.temperature, "top_p": question.top_p, "seed": question.seed}
        try:
            return self.endpoint.complete(self.model, question.text, longest=question.longest, **sampling)
        except EndpointError as error:
            if error.status in (400, 413, 422):
                return TeacherRefusal(str(error))
            raise


def _files_digest(folder: Path) -> str:
    """Return the digest of the model in `folder`, computed like the digest of a base model. If the model has
    no tokenizer.json, return a digest of all file names and contents.
    """
    try:
        return base_digest(folder)
    except BaseModelError:
        total = hashlib.sha256()
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return f"sha256:{total.hexdigest()}"


@dataclass(slots=True)
class LocalTeacher:
    """A teacher model in a local folder in Hugging Face format. It answers batches of questions in a child
    process.
    """

    folder: Path
    rows: int
    """Number of questions that are answered in one batch."""
    option: str = "teacher"
    """Name of the option that chose this teacher, such as `teacher` or `judge`, for error messages."""
    identity: Mapping[str, str] = field(init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _errors: IO[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            raise OptionError(
                self.option,
                f"the folder {self.folder} holds no config.json; "
                "give the folder of a model, or http://HOST:PORT/v1",
            )
        self.identity = {"model": self.folder.resolve().name, "digest": _files_digest(self.folder)}

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """Answer `questions` in batches of `rows` questions, and yield each question with its answer. If
        `stop` is set, start no further batch.
        """
        for start in range(0, len(questions), self.rows):
            if stop.is_set():
                return
            batch = questions[start : start + self.rows]
            for question, (text, ended) in zip(batch, self._batch(batch), strict=True):
                yield question, EndpointAnswer(text, ended, self.identity["model"])

    def _batch(self, batch: Sequence[TeacherQuestion]) -> list[tuple[str, bool]]:
        process = self._process = self._process or self._start()
        first = batch[0]
        asked = {
            "questions": [one.text for one in batch],
            "longest": first.longest,
            "temperature": first.temperature,
            "top_p": first.top_p,
            "seed": first.seed,
        }
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(asked), file=process.stdin, flush=True)
            return [(str(text), bool(ended)) for text, ended in json.loads(process.stdout.readline())]
        except (OSError, ValueError) as error:
            self._end()
            said = self._complaint() or f"the process ended with code {process.returncode}"
            raise TeacherError(
                f"{self.option}: the process of the model in {self.folder} does not answer: {said}"
            ) from error

    def _complaint(self) -> str:
        """Return the last line that the teacher's process wrote to standard error, at most 300 characters."""
        assert self._errors is not None
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or [""])[-1][:300]

    def _start(self) -> subprocess.Popen[str]:
        # It lives as long as the process: `close` ends both.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        path = os.pathsep.join(
            [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        return subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "adapters.training.finetune.teacher_child",
                str(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            errors="replace",
            # Not in the terminal's process group: Ctrl-C reaches the parent, which then ends this one.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        )

    def _end(self) -> None:
        """Close the standard input of the teacher's process, which makes the process end, and wait
        for that.
        """
        if self._process is not None:
            with self._process, contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Kill the teacher's process."""
        if self._process is not None:
            self._process.kill()
        self._end()
        if self._errors is not None:
            self._errors.close()
