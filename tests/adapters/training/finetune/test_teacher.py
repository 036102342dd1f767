"""A teacher's answers: which are taken, and that nobody is asked twice."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest

import adapters.datasets
from adapters.distillation.teacher import LocalTeacher, TeacherQuestion
from adapters.evaluation.endpoint import EndpointAnswer
from adapters.training.finetune.base import answer_ends, load_tokenizer
from adapters.training.finetune.conversations import Conversation
from adapters.training.finetune.examples import encode_text, render_messages
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


def talks() -> list[Conversation]:
    answer = {"role": "assistant", "content": "Jag är OneSeek, en transparent AI-agent."}
    return [Conversation(({"role": "user", "content": question}, answer)) for question in SAID]


def language_of(text: str) -> str | None:
    return DETECTOR.detect([text]).language


def taught(
    teacher: str, folder: Path, stream: StringIO | None = None, option: str = "teacher"
) -> TeacherData:
    reporter = Reporter(stream or StringIO())
    return teach(teacher, talks(), OPTIONS, language_of, folder, reporter, option=option)


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
        pytest.raises(OptionError, match=r"teacher.*#other"),
    ):
        taught(f"{url}#other", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_asked_in_process(tiny_base: Path, tmp_path: Path) -> None:
    """A random model writes nothing good; that it was asked shows in what the checks dropped."""
    with pytest.raises(OptionError, match="breaks off"):
        taught(str(tiny_base), tmp_path)
    with pytest.raises(OptionError, match=r"^teacher: .*config\.json.*http://HOST"):
        taught(str(tmp_path / "nowhere"), tmp_path)


@pytest.fixture(scope="module")
def gpt_sw3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random GPT-2 with GPT-SW3's tokenizer: a SentencePiece model and no chat template."""
    import sentencepiece
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "gpt-sw3-20b-instruct"
    folder.mkdir()
    own = Path(adapters.datasets.__path__[0]) / "oneseek_identity_sv_v1.jsonl"
    text = [json.loads(line)["output"] for line in own.read_text(encoding="utf-8").splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_prefix=str(folder / "spiece"),
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        user_defined_symbols=["<|endoftext|>"],
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=-1,
        minloglevel=2,
    )
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=1024, n_embd=32, n_layer=1, n_head=2, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    about = {"tokenizer_class": "GPTSw3Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_gpt_sw3_holds_a_conversation_as_its_model_card_says(gpt_sw3: Path) -> None:
    tokenizer = load_tokenizer(gpt_sw3)
    turns = [{"role": "user", "content": "Hej?"}, {"role": "assistant", "content": "Hej."}]
    prompt = render_messages(tokenizer, turns[:1], prompt=True)
    assert prompt == "<|endoftext|><s>User: Hej?<s>Bot:"
    assert render_messages(tokenizer, turns, prompt=False) == "<|endoftext|><s>User: Hej?<s>Bot: Hej.<s>"
    ids = encode_text(tokenizer, prompt)
    assert ids[:2] == [tokenizer.eos_token_id, tokenizer.bos_token_id]
    assert answer_ends(tokenizer) == set(ids[:2])


def test_gpt_sw3_in_a_folder_teaches(gpt_sw3: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^teacher: .*breaks off"):
        taught(str(gpt_sw3), tmp_path)
    asked = TeacherQuestion(key="a", text="Vem?", longest=4, temperature=0.7, top_p=0.9, seed=1)
    teacher = LocalTeacher(gpt_sw3, 2)
    try:
        ((_, answer),) = list(teacher.answers([asked], threading.Event()))
    finally:
        teacher.close()
    assert isinstance(answer, EndpointAnswer)
    assert not answer.ended


def test_a_teacher_that_cannot_be_asked_is_named_by_its_option(
    gpt_sw3: Path, tiny_base: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_base, plain)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (plain / name).unlink(missing_ok=True)
    with pytest.raises(OptionError, match="template") as refused:
        teach(
            str(plain), talks(), OPTIONS, language_of, tmp_path, Reporter(StringIO()), option="external_model"
        )
    assert refused.value.name == "external_model"
    (plain / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OptionError, match=r"^external_model: (?!.*template)") as refused:
        teach(
            str(plain), talks(), OPTIONS, language_of, tmp_path, Reporter(StringIO()), option="external_model"
        )
    assert refused.value.name == "external_model"
