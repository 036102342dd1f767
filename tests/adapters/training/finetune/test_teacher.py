"""A teacher's answers: which are taken, and that nobody is asked twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest

from adapters.training.finetune.conversations import Conversation
from adapters.training.finetune.teacher import TeacherData, teach
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter
from routing.detect import ProfileDetector

DETECTOR = ProfileDetector()
OPTIONS = TrainOptions(language="sv", precision="fp32")
SAID = {
    "Vem är du?": "Jag heter OneSeek och är en AI-agent med öppna kort.",
    "Vad heter du?": "I am OneSeek, an open AI agent.",
    "Vem talar?": "Det är en mycket trevlig dag i dag, tycker jag.",
    "Vad är du?": "Jag är OneSeek, en transparent AI-agent.",
    "Och du?": "Jag är OneSeek och jag",
}


@contextmanager
def server(said: dict[str, str]) -> Generator[tuple[str, list[str]]]:
    """An OpenAI-compatible server with one answer for each question, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": "teacher"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question: str = body["messages"][0]["content"]
            asked.append(question)
            answer = next(text for known, text in said.items() if f"Fråga: {known}" in question)
            message = {"role": "assistant", "content": answer}
            self._send({"choices": [{"message": message, "finish_reason": "stop"}]})

        def _send(self, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/v1", asked
        finally:
            running.shutdown()
            thread.join()


def taught(teacher: str, folder: Path, stream: StringIO | None = None) -> TeacherData:
    talks = [
        Conversation(
            (
                {"role": "user", "content": question},
                {"role": "assistant", "content": "Jag är OneSeek, en transparent AI-agent."},
            )
        )
        for question in SAID
    ]

    def language_of(text: str) -> str | None:
        return DETECTOR.detect([text]).language

    return teach(teacher, talks, OPTIONS, language_of, folder, Reporter(stream or StringIO()))


def test_what_is_whole_in_the_language_and_new_is_taken_and_the_rest_counted(tmp_path: Path) -> None:
    stream = StringIO()
    with server(SAID) as (url, asked):
        found = taught(url, tmp_path, stream)
        assert [(one.question, one.answers) for one in found.conversations] == [
            ("Vem är du?", [SAID["Vem är du?"]])
        ]
        told = json.loads(stream.getvalue())
        assert (told["asked"], told["kept"]) == (5, 1)
        dropped = {"not in sv": 1, "not as OneSeek": 1, "repeats the data": 1, "breaks off": 1}
        assert told["dropped"] == dropped
        assert len(asked) == 5
        assert taught(url, tmp_path) == found
        assert len(asked) == 5
    assert found.digest.startswith("sha256:")


def test_a_teacher_without_a_good_answer_is_refused(tmp_path: Path) -> None:
    with (
        server(dict.fromkeys(SAID, "No.")) as (url, _),
        pytest.raises(OptionError, match="wrote nothing that can be used"),
    ):
        taught(f"{url}#other", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_asked_in_process(tiny_base: Path, tmp_path: Path) -> None:
    """A random model writes nothing good; that it was asked shows in what the checks dropped."""
    with pytest.raises(OptionError, match=r"wrote nothing that can be used: .*breaks off"):
        taught(str(tiny_base), tmp_path)
    with pytest.raises(OptionError, match=r"holds no config\.json; give the folder of a model, or http"):
        taught(str(tmp_path / "nowhere"), tmp_path)
