"""Let a teacher model write additional answers to the questions of a data set, so that the student model
learns from these too.

The teacher is usually a larger model. An answer is kept only if it is complete, in the right language, and
says that the model is OneSeek if the original answer does. Dropped answers are counted by reason. The answers
are stored in a file, so that the same questions are not asked again.
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from adapters.evaluation.endpoint import ModelEndpoint
from adapters.evaluation.judge import LanguageOf, claims_identity, faults
from adapters.files.atomic import write_file
from adapters.training.finetune.answering import ask
from adapters.training.finetune.base import Machine, load_base, load_tokenizer
from adapters.training.finetune.conversations import Conversation, files_digest, read_conversations
from adapters.training.loop.launch import ALONE, Launch
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter

_LONGEST = 160
_AT_ONCE = 8
_MOST_CHARACTERS = 600
_OTHER = (
    "Below are a question to the AI agent OneSeek, and its answer. Write the answer again in other words of "
    "your own, in the language of the answer, with the same meaning, still as OneSeek speaking of itself. "
    "Write the answer alone.\n\nQuestion: {question}\nAnswer: {answer}"
)
_ASKED = {
    "en": "Below are a question to the AI agent OneSeek, and its answer. Write the answer again in other "
    "words of your own, in English, with the same meaning, still as OneSeek speaking of itself. Write the "
    "answer alone.\n\nQuestion: {question}\nAnswer: {answer}",
    "sv": "Nedan står en fråga till AI-agenten OneSeek, och dess svar. Skriv svaret på nytt med andra, egna "
    "ord, på svenska, med samma innebörd, fortfarande som OneSeek som talar om sig själv. Skriv bara svaret."
    "\n\nFråga: {question}\nSvar: {answer}",
}


@dataclass(frozen=True, slots=True)
class TeacherData:
    """The answers that a teacher model wrote and that were kept, with the teacher's name."""

    conversations: tuple[Conversation, ...]
    name: str
    digest: str
    """Digest of the file with the teacher's answers."""


AnswerQuestions = Callable[[Sequence[str]], list[str]]


def teach(
    teacher: str,
    conversations: Sequence[Conversation],
    options: TrainOptions,
    language_of: LanguageOf,
    folder: Path,
    reporter: Reporter,
    *,
    launch: Launch = ALONE,
    option: str = "teacher",
    key: str | None = None,
) -> TeacherData:
    """Let `teacher` (`http://HOST:PORT#MODEL`, or a folder) rewrite the answer of each conversation with a
    single question, and keep the good answers.

    They are stored in a file in `folder` whose name depends on the teacher and the questions. `key` is the
    API key of the teacher's server. Raises `OptionError` that names `option` if the teacher is invalid or no
    answer is good, and `EndpointError`.
    """
    sources = [one for one in conversations if len(one.messages) == 2]
    form = _ASKED.get(options.language, _OTHER)
    asked = [form.format(question=one.question, answer=one.answers[0]) for one in sources]
    key = hashlib.sha256(json.dumps([teacher, asked]).encode()).hexdigest()[:16]
    path = folder / f"taught-{options.language}-{key}.jsonl"
    name = teacher if "://" in teacher else Path(teacher).name
    while launch.rank and not path.exists():  # the first process of several asks for them all
        time.sleep(1)
    if not path.exists():
        said = _answerer(teacher, options, launch, option, key)(asked)
        good, dropped = _sift(sources, said, options.language, language_of)
        reporter.print_event("taught", teacher=name, asked=len(asked), kept=len(good), dropped=dict(dropped))
        if not good:
            raise OptionError(
                option, f"the teacher {teacher} wrote no usable answer; dropped by reason: {dict(dropped)}"
            )
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in good)
        write_file(path, text)
    return TeacherData(tuple(read_conversations(path)), name, files_digest([path]))


def _sift(
    sources: Sequence[Conversation], said: Sequence[str], language: str, language_of: LanguageOf
) -> tuple[list[dict[str, str]], Counter[str]]:
    """Return the teacher's answers that pass every check, as data set examples, and the number of answers
    dropped by each check.
    """
    known = {answer.strip().lower() for one in sources for answer in one.answers}
    good: list[dict[str, str]] = []
    dropped: Counter[str] = Counter()
    for source, answer in zip(sources, said, strict=True):
        found = faults(answer, language, language_of)
        needs_name = claims_identity(source.answers[0], language)
        if found:
            dropped[found[0]] += 1
        elif len(answer) > _MOST_CHARACTERS:
            dropped["too long"] += 1
        elif needs_name and not claims_identity(answer, language):
            dropped["not as OneSeek"] += 1
        elif answer.strip().lower() in known:
            dropped["repeats the data"] += 1
        else:
            known.add(answer.strip().lower())
            good.append({"instruction": source.question, "input": "", "output": answer.strip()})
    return good, dropped


def _answerer(
    teacher: str, options: TrainOptions, launch: Launch, option: str, key: str | None
) -> AnswerQuestions:
    """Return a function that sends questions to `teacher` and returns its answers. Raises `OptionError` if
    the server's address is invalid.
    """
    if "://" not in teacher:
        return lambda asked: _ask_folder(Path(teacher), options, launch, option, asked)
    url, _, model = teacher.partition("#")
    try:
        endpoint = ModelEndpoint.at(url, key)
    except ValueError as error:
        raise OptionError(option, str(error)) from None
    model = model or str(endpoint.models()[0]["id"])

    def ask_all(asked: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(partial(endpoint.ask, model, longest=_LONGEST), asked))

    return ask_all


def _ask_folder(
    folder: Path, options: TrainOptions, launch: Launch, option: str, asked: Sequence[str]
) -> list[str]:
    """Let the local model in `folder` answer the questions, and then remove it from memory, before the
    student model is loaded.
    """
    machine = Machine.here(launch)
    try:
        tokenizer, model = load_teacher(folder, options, machine)
        found = ask(model, tokenizer, asked, longest=_LONGEST)
    except OptionError as error:
        raise OptionError(option, f"{folder}: {error.problem}") from error
    del model
    gc.collect()
    return found


def load_teacher(
    folder: Path, options: TrainOptions, machine: Machine
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load the tokenizer and model of the local teacher in `folder`. Raises `OptionError` if that fails."""
    if not (folder / "config.json").is_file():
        raise OptionError(
            "teacher",
            f"the folder {folder} holds no config.json; "
            "give the folder of a model, or http://HOST:PORT#MODEL",
        )
    try:
        tokenizer = load_tokenizer(folder)
        model = load_base(folder, options, machine)
    except (ImportError, OSError, ValueError, KeyError) as error:
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = "; run: pip install sentencepiece" if "sentencepiece" in str(error).lower() else ""
        raise OptionError("teacher", f"the teacher's model cannot be loaded: {why}{remedy}") from error
    if machine.cuda and not options.load_in_4bit:
        model.to("cuda")  # pyright: ignore[reportArgumentType] its stubs know no device names
    return tokenizer, model.eval()
