"""Who is asked: a server that speaks OpenAI's API, or a local model in a process of its own."""

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
    """One request to a teacher."""

    key: str
    """What its answer is kept under."""
    text: str
    longest: int
    """Most tokens of the answer."""
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class TeacherRefusal:
    """What a server says of a question that it does not take: too long for it perhaps, or filtered."""

    reason: str


TeacherAnswer = EndpointAnswer | TeacherRefusal


class Teacher(Protocol):
    """Answers questions, several at a time."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Who it is, for the record: an address without credentials and a model, or a name and a digest."""
        ...

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """Answers as they come, in any order; after `stop`, those alone that were asked for before.

        Raises `EndpointError` or `TeacherError` where there is no going on; what came before stands.
        """
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class TeacherError(RuntimeError):
    """A local teacher ended; says what it said last."""


def identity_digest(identity: Mapping[str, str]) -> str:
    """`sha256:…` of a local model's files; of a server, over who it says that it is."""
    found = identity.get("digest")
    return found or f"sha256:{hashlib.sha256(canonical_json(dict(identity))).hexdigest()}"


@dataclass(frozen=True, slots=True)
class RemoteTeacher:
    """A model behind OpenAI's API."""

    endpoint: ModelEndpoint
    model: str
    concurrency: int
    retries: int

    @property
    def identity(self) -> Mapping[str, str]:
        """Address and model."""
        return {"url": self.endpoint.url, "model": self.model}

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """As they come, `concurrency` in flight."""
        return side_by_side(self._ask, questions, self.concurrency, stop, retries=self.retries)

    def close(self) -> None:
        """Holds nothing."""

    def _ask(self, question: TeacherQuestion) -> TeacherAnswer:
        sampling = {"temperature": question.temperature, "top_p": question.top_p, "seed": question.seed}
        try:
            return self.endpoint.complete(self.model, question.text, longest=question.longest, **sampling)
        except EndpointError as error:
            if error.status in (400, 413, 422):
                return TeacherRefusal(str(error))
            raise


def _files_digest(folder: Path) -> str:
    """That of a base as the registry knows bases; over all files by name where it has no tokenizer.json."""
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
    """A model in Hugging Face layout, answering batch by batch in a process of its own."""

    folder: Path
    rows: int
    """Questions in one batch."""
    option: str = "teacher"
    """The option that named it, for errors."""
    identity: Mapping[str, str] = field(init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _errors: IO[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            remedy = "give the folder of a model, or http://HOST:PORT/v1"
            raise OptionError(self.option, f"{self.folder} holds no config.json; {remedy}")
        self.identity = {"model": self.folder.resolve().name, "digest": _files_digest(self.folder)}

    def answers(
        self, questions: Sequence[TeacherQuestion], stop: Stop
    ) -> Iterator[tuple[TeacherQuestion, TeacherAnswer]]:
        """One batch after the other."""
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
            said = self._complaint() or f"it ended with code {process.returncode}"
            raise TeacherError(
                f"{self.option}: the model in {self.folder} does not answer: {said}"
            ) from error

    def _complaint(self) -> str:
        """The last thing that its process said on standard error."""
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
            # Out of the terminal's group: Ctrl-C is for the parent, which ends it in its own time.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        )

    def _end(self) -> None:
        """It ends with its standard input."""
        if self._process is not None:
            with self._process, contextlib.suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None

    def close(self) -> None:
        """End its process, whatever it is at."""
        if self._process is not None:
            self._process.kill()
        self._end()
        if self._errors is not None:
            self._errors.close()
