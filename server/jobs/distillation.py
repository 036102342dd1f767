"""Run a distillation for the command line, and train an adapter on its data."""

from __future__ import annotations

import hashlib
import json as json_format
import shlex
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.distillation.options import DistillOptions
from adapters.distillation.output import DistillResult
from adapters.distillation.requester import InterruptedRunError
from adapters.distillation.run import DistillTask
from adapters.distillation.run import make_dataset as make
from adapters.distillation.teacher import LocalTeacher, RemoteTeacher, Teacher
from adapters.evaluation.endpoint import ModelEndpoint
from adapters.files.jsonfile import canonical_json
from adapters.home import mark_home
from adapters.training.finetune.data_origin import Origin
from adapters.training.loop.interruption import Interruption
from adapters.training.loop.options import OptionError, TrainOptions
from adapters.training.loop.progress import Reporter
from server.config.environment import expand_home
from server.config.settings import Settings
from server.config.values import SettingsError
from server.jobs.languages import detector_for
from server.jobs.requests import teacher_named
from server.jobs.teachers import key_of, model_folder, refuse_server_options
from server.jobs.training import job_of, run_training, settings_of
from server.jobs.training_checks import check_files, check_request, own_data, questions_of

if TYPE_CHECKING:
    from server.jobs.requests import DistillSource, TrainRequest


def run_distillation(
    source: DistillSource,
    options: DistillOptions,
    student: TrainRequest,
    training: TrainOptions,
    *,
    no_train: bool,
    json: bool,
) -> int:
    """Run a distillation. Returns the exit code: 0 if it is done, 1 if it made too few examples, 130 if
    interrupted.
    """
    settings = settings_of(student)
    check_request(student, training.language, settings, made=True)
    check_files("seeds", list(map(expand_home, source.seeds)))
    language_of = detector_for(training.language)
    if not no_train:
        # All that could be refused once the teacher has answered, hours later, is refused now.
        job_of(student, training, settings, resume=None, made=(Path("data.jsonl"),))
    elif source.output is None:
        mark_home(settings.home)
    with ExitStack() as held:
        teacher = held.enter_context(closing(_teacher(source, "teacher", options)))
        judge = held.enter_context(closing(_teacher(source, "judge", options))) if source.judge else None
        task = _task(source, options, training, teacher, judge, settings)
        task = replace(task, questions=questions_of(student, training.language) or ())
        interruption = Interruption()
        try:
            with interruption.listening():
                made = make(task, teacher, judge, language_of, Reporter(), interruption)
        except InterruptedRunError:
            return _print_interrupted(task.output)
    if no_train or not made.enough:
        return _print_data(made, json=json)
    job = job_of(student, training, settings, resume=None, made=(made.data,), origin=_origin(made, options))
    return run_training(job, settings, student, json=json, more={"distilled": _result_to_json(made)})


def _teacher(source: DistillSource, role: Literal["teacher", "judge"], options: DistillOptions) -> Teacher:
    """Return the model that is the teacher or the judge: either a server's model, or a model in a folder."""
    option, asked = role, str(source.judge)
    if role == "teacher":
        option, asked = teacher_named(source) or (role, "")
    named: str | None = getattr(source, f"{role}_model")
    variable: str | None = getattr(source, f"{role}_key_env")
    if "://" not in asked:
        refuse_server_options(asked, model=named, key_env=variable, role=role)
        return LocalTeacher(model_folder(option, asked), options.concurrency, option)
    url, _, model = asked.partition("#")
    try:
        endpoint = ModelEndpoint.at(url, key_of(role, variable), options.timeout)
    except SettingsError:
        raise
    except ValueError as error:
        raise OptionError(option, str(error)) from None
    named = named or model or str(endpoint.models()[0]["id"])
    return RemoteTeacher(endpoint, named, options.concurrency, options.retries)


def _task(
    source: DistillSource,
    options: DistillOptions,
    training: TrainOptions,
    teacher: Teacher,
    judge: Teacher | None,
    settings: Settings,
) -> DistillTask:
    language = training.language
    seeds = tuple(map(expand_home, source.seeds)) or own_data(language)
    place = settings.home / "distilled"
    task = DistillTask(
        options=options, language=language, seed=training.seed, seeds=seeds, output=source.output or place
    )
    if source.output is not None:
        return task
    key = hashlib.sha256(canonical_json(task.asked(teacher, judge))).hexdigest()[:16]
    return replace(task, output=place / f"{language}-{key}")


def _origin(made: DistillResult, options: DistillOptions) -> Origin:
    """Describe where the training data comes from, for the student adapter's model card and ledger entry."""
    dropped = {f"dropped_{_word(name)}": float(count) for name, count in made.answers.dropped.items()}
    asked = dict(made.asked)
    sources = {"seeds": str(asked["seeds"]), "teacher": made.teacher_digest}
    details = {"teacher": made.teacher, "sampling_seed": asked["seed"]}
    if made.judge_digest is not None:
        sources["judge"] = made.judge_digest
        details["judge"] = asked["judge"]
    return Origin(
        action="distill",
        made_by="oneseek distill",
        data=f"examples that {asked['teacher']['model']} wrote",
        config={"distilled": {"asked": asked, "options": asdict(options)}},
        metrics={
            "distilled": float(len(made.examples)),
            "asked_of_teacher": float(made.answers.asked),
            "paraphrases": float(made.paraphrases.kept),
            **dropped,
        },
        sources=sources,
        details=details,
    )


def _word(reason: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in reason)


def _result_to_json(made: DistillResult) -> dict[str, Any]:
    return {
        "data": str(made.data),
        "examples": len(made.examples),
        "wanted": made.wanted,
        "asked": made.answers.asked,
        "dropped": dict(made.answers.dropped.most_common()),
        "paraphrases": made.paraphrases.kept,
        "teacher": made.teacher,
    }


def _print_data(made: DistillResult, *, json: bool) -> int:
    """Print in one line how many examples were made, and how to train on them. Returns the exit code: 1 if
    there are too few examples.
    """
    dropped = ", ".join(f"{name} {count}" for name, count in made.answers.dropped.most_common()) or "none"
    counted = (
        f"{len(made.examples)} examples of {made.answers.asked} answers in {made.data} (dropped: {dropped})"
    )
    again = shlex.join(
        ["oneseek", "train", "identity", "--language", made.asked["language"], "--dataset", str(made.data)]
    )
    summary = f"made {counted}; train on it with: {again}"
    if not made.enough:
        summary = (
            f"made only {counted} instead of {made.wanted}, so nothing was trained. Give more seeds, "
            "--paraphrases or --attempts, or request fewer with --examples"
        )
    if json:
        print(json_format.dumps({**_result_to_json(made), "summary": summary}, ensure_ascii=False))
    else:
        print(summary)
    return 0 if made.enough else 1


def _print_interrupted(folder: Path) -> int:
    again = shlex.join(["oneseek", *sys.argv[1:]])
    print(f"interrupted; all answers so far are in {folder}. Continue with: {again}", file=sys.stderr)
    return 130
