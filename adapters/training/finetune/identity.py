"""Train an adapter from identity data, evaluate it, and write it in PEFT format, for `oneseek train
identity`.

The registry is not changed. All files stay in the run's work folder until the caller moves them.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from adapters.evaluation.judge import LanguageOf
from adapters.evaluation.report import IdentityReport, judge_answers
from adapters.files.jsonfile import canonical_json
from adapters.training.finetune.answering import ask
from adapters.training.finetune.base import (
    Machine,
    check_machine,
    load_base,
    load_tokenizer,
    resolve_precision,
)
from adapters.training.finetune.conversations import (
    Conversation,
    files_digest,
    hold_out,
    in_language,
    read_conversations,
)
from adapters.training.finetune.examples import TokenizedExample, examples
from adapters.training.finetune.finetune import finetune, last_checkpoint
from adapters.training.finetune.job import FinetuneInterrupted, FinetuneJob, FinetuneResult, HelperProcess
from adapters.training.finetune.result_files import Measured, config_of, write_result
from adapters.training.finetune.teacher import TeacherData, teach
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter
from adapters.training.loop.threads import set_threads

_ACTIVE = "active"
"""Name under which the currently active version of the adapter is loaded, to compare it with the
new version.
"""


def train_identity(
    job: FinetuneJob, language_of: LanguageOf, reporter: Reporter, interruption: Interruption | None = None
) -> FinetuneResult | FinetuneInterrupted | HelperProcess:
    """Run the training `job`: train the adapter, evaluate it, and write the results. Return what happened.

    Raises `OptionError` if the options, the data and this machine do not fit together, and `OSError`.
    """
    transformers_logging.disable_progress_bar()
    machine = Machine.here(job.launch)
    check_machine(job.options, machine)
    if machine.rank:
        reporter = Reporter(io.StringIO())
    tokenizer = load_tokenizer(job.base)
    kept, held = _split(job, language_of, reporter)
    taught = None
    if job.teacher is not None:
        taught = teach(
            job.teacher,
            kept,
            job.options,
            language_of,
            job.folder,
            reporter,
            launch=job.launch,
            option=job.teacher_option,
            key=job.teacher_key,
        )
    training, held_out, rows = _tokens(
        job, tokenizer, (*kept, *(taught.conversations if taught else ())), held, reporter
    )
    work = _work_folder(job, taught)
    base = load_base(job.base, job.options, machine)
    if not machine.cuda and not machine.launched:
        set_threads(
            job.threads,
            work / "threads",
            begun=last_checkpoint(work) is not None,
            hidden=base.config.hidden_size,
            rows=job.options.batch_size * min(64, job.options.max_length),
            reporter=reporter,
        )
    elif job.threads is not None:
        torch.set_num_threads(job.threads)
    reporter.print_event(
        "training",
        base=job.base_name,
        language=job.options.language,
        examples=len(training),
        held_out=len(held_out),
        precision=resolve_precision(job.options.precision, machine),
        parameters=base.num_parameters(),
        threads=torch.get_num_threads(),
    )
    run = finetune(
        base,
        tokenizer,
        training,
        held_out,
        job.options,
        machine,
        work=work,
        resume=job.resume is not False,
        reporter=reporter,
        interruption=interruption or Interruption(),
    )
    if not run.main:
        return HelperProcess()
    if run.interrupted:
        return FinetuneInterrupted(run.steps, run.planned, work)
    measured = _measure(job, run.model, tokenizer, _questions(job, held), language_of)
    return write_result(job, work, run, measured, rows, taught)


def _split(
    job: FinetuneJob, language_of: LanguageOf, reporter: Reporter
) -> tuple[list[Conversation], list[Conversation]]:
    """Read the job's data in the wanted language, and split the conversations into those for training and
    those held out.
    """
    read = [one for path in job.dataset for one in read_conversations(path)]
    spoken = in_language(read, job.options.language, language_of)
    if len(spoken) < len(read):
        reporter.print_event("left out", in_another_language=len(read) - len(spoken))
    return hold_out(spoken, job.options.held_out, job.options.seed)


def _tokens(
    job: FinetuneJob,
    tokenizer: PreTrainedTokenizerBase,
    kept: Sequence[Conversation],
    held: Sequence[Conversation],
    reporter: Reporter,
) -> tuple[list[TokenizedExample], list[TokenizedExample], int]:
    """Return the tokenized examples for training, those held out, and the number of training conversations.
    Examples longer than the maximum length are left out.
    """
    training = [_fitting(job.options, tokenizer, one) for one in kept]
    held_out = [_fitting(job.options, tokenizer, one) for one in held]
    if long := sum(not found for found in (*training, *held_out)):
        reporter.print_event("left out", longer_than_max_length=long)
    if not any(training):
        files = ", ".join(map(str, job.dataset))
        raise OptionError(
            "dataset",
            f"{files}: no examples in the language {job.options.language!r} are left to train on; check "
            "language and max_length",
        )
    rows = sum(bool(found) for found in training)
    return [one for found in training for one in found], [one for found in held_out for one in found], rows


def _fitting(
    options: TrainOptions, tokenizer: PreTrainedTokenizerBase, conversation: Conversation
) -> list[TokenizedExample]:
    found = examples(tokenizer, conversation)
    return found if all(len(one["input_ids"]) <= options.max_length for one in found) else []


def _work_folder(job: FinetuneJob, taught: TeacherData | None) -> Path:
    """Return the work folder of this run. Its name depends on the base model, data and options, so the same
    inputs give the same folder. Raises `OptionError` if `resume` does not fit its contents.
    """
    asked = {"base": job.base_digest, "data": files_digest(job.dataset), **config_of(job, taught)}
    name = f"{job.options.language}-{hashlib.sha256(canonical_json(asked)).hexdigest()[:16]}"
    work = job.folder / name
    if job.resume and last_checkpoint(work) is None:
        others = [str(path) for path in sorted(job.folder.glob("*-*")) if last_checkpoint(path) is not None]
        hint = f"; unfinished runs with other options or data: {', '.join(others)}" if others else ""
        raise OptionError(
            "resume", f"{job.folder} holds no unfinished run with these options and data to continue{hint}"
        )
    if job.resume is False and last_checkpoint(work) is not None:
        raise OptionError(
            "resume",
            "an interrupted run with the same options and data exists; "
            f"continue it with --resume, or start again: rm -r {work}",
        )
    work.mkdir(parents=True, exist_ok=True)
    return work


def _questions(job: FinetuneJob, held: Sequence[Conversation]) -> list[str]:
    """Return the evaluation questions: those of the job if given, otherwise the first questions of the
    held-out conversations.
    """
    if job.questions is not None:
        return list(job.questions)
    return list(dict.fromkeys(one.question for one in held))


def _measure(
    job: FinetuneJob,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    language_of: LanguageOf,
) -> Measured:
    """Evaluate the base model, the newly trained adapter and the currently active version of the adapter on
    `questions`.
    """
    model.eval()
    model.config.use_cache = True

    def judged(name: str) -> IdentityReport:
        said = ask(_unwrap(model), tokenizer, questions)
        return judge_answers(name, job.options.language, questions, said, language_of)

    with model.disable_adapter():
        before = judged(job.base_name)
    after, active = judged(f"{job.alias}@{job.version}"), None
    if job.active is not None:
        name, folder = job.active
        model.load_adapter(str(folder), _ACTIVE)
        model.set_adapter(_ACTIVE)
        active = judged(name)
        model.set_adapter("default")
        model.delete_adapter(_ACTIVE)
    return Measured(before, after, active)


def _unwrap(model: PeftModel) -> PreTrainedModel:
    return model  # pyright: ignore[reportReturnType] a PeftModel hands everything on to the model in it


def clean_up(made: FinetuneResult) -> None:
    """Delete the work folder of a finished run. Call this after all results have been moved out of it."""
    shutil.rmtree(made.work)
