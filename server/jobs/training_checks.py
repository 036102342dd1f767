"""Check a training request before torch is imported: its names, files and folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters import names
from adapters.bases import find_base
from adapters.datasets.lines import iterate_lines
from adapters.evaluation.questions import identity_questions, languages, read_questions
from adapters.registry.registry import Registry
from server.config.each_base import default_settings
from server.config.environment import expand_home
from server.config.settings import Settings
from server.config.values import SettingsError, check_flag, within
from server.jobs.languages import detector_for
from server.jobs.teachers import key_of, teacher_of

if TYPE_CHECKING:
    from adapters.lora.families import LoraFamily
    from adapters.training.loop.options import TrainOptions
    from server.jobs.requests import TrainRequest
    from server.live.catalogue import Catalogue


def check_request(asked: TrainRequest, language: str, settings: Settings, *, made: bool = False) -> None:
    """Check the parts of a training request that need neither torch nor the base's digest. `made` is true if
    a teacher makes the training data.

    Raises `SettingsError` that names the option.
    """
    alias = check_flag("alias", asked.alias, names.alias)
    version = check_flag("version", asked.version, names.version)
    within("threads", asked.threads, 1, 1024)
    if asked.output is not None and asked.output.exists():
        raise SettingsError("output", f"{asked.output} already exists; use a new folder")
    files = [expand_home(path) for path in asked.dataset]
    if not files and not made:
        files = list(own_data(language))
    check_files("dataset", files)
    questions_of(asked, language)
    teacher_of(asked)
    key_of("teacher", asked.teacher_key_env)
    if version is not None and asked.output is None:
        base = find_base(Path.cwd(), default_settings(settings).base_model)
        alias = alias or default_alias(base.shipped, language)
        kept = [entry.version for entry in Registry(settings.home).listing().versions(alias)]
        _refuse_taken(alias, version, kept)
    detector_for(language)


def check_version(catalogue: Catalogue, alias: str, version: str) -> None:
    """Raise `SettingsError` if `alias@version` is already served from any folder."""
    served = [item.version for item in catalogue.served.adapters() if item.alias.lower() == alias.lower()]
    _refuse_taken(alias, version, served)


def _refuse_taken(alias: str, version: str, taken: Iterable[str]) -> None:
    versions = list(taken)
    if version.lower() in (one.lower() for one in versions):
        free = names.next_version(versions)
        raise SettingsError("version", f"{alias}@{version} already exists; remove --version to use {free}")


def check_files(option: str, files: Sequence[Path]) -> None:
    """Raise `SettingsError` unless each path is a file with at least one line."""
    for path in files:
        if path.is_dir():
            raise SettingsError(option, f"{path} is a folder; give the files in it")
        if not path.exists():
            hub = not path.suffix and len(path.parts) == 2 and not path.is_absolute()
            remedy = "download a data set of the Hugging Face hub as JSON lines first"
            raise SettingsError(
                option,
                f"the file {path} does not exist in {Path.cwd()}; {remedy if hub else 'correct the path'}",
            )
        try:
            empty = next(iterate_lines(path), None) is None
        except OSError as error:
            raise SettingsError(option, f"the file {path} cannot be read: {error.strerror}") from None
        if empty:
            raise SettingsError(option, f"{path} is empty; give a file with one example per line")


def own_data(language: str) -> tuple[Path, ...]:
    """Return OneSeek's own identity data: a file for both languages, and a file for `language`.

    Raises `SettingsError` for a language in which OneSeek has no data.
    """
    import adapters.datasets

    folder = Path(adapters.datasets.__path__[0])
    own = folder / f"oneseek_identity_{language}_v1.jsonl"
    if not own.is_file():
        known = sorted(path.name.split("_")[2] for path in folder.glob("oneseek_identity_??_v1.jsonl"))
        raise SettingsError(
            "dataset",
            f"is missing: OneSeek has data in {' and '.join(known)} only; give files with examples in "
            f"{language!r} with --dataset",
        )
    return folder / "oneseek_identity_v1.jsonl", own


def questions_of(asked: TrainRequest, language: str) -> tuple[str, ...] | None:
    """Return the evaluation questions: those of --questions, else OneSeek's own. None if there are none in
    this language.
    """
    if asked.questions is not None:
        try:
            return tuple(read_questions(expand_home(asked.questions)))
        except (OSError, ValueError) as error:
            raise SettingsError("questions", str(error)) from None
    return tuple(identity_questions(language)) if language in languages() else None


def check_targets(options: TrainOptions, family: LoraFamily) -> None:
    """Raise `SettingsError` for a target module that does not exist in the base's architecture."""
    for target in options.targets:
        if not any(f".{known.path}".endswith(f".{target}") for known in family.targets):
            raise SettingsError(
                "target_modules",
                f"{target!r} is not a module of the base model; use some of {', '.join(family.names)}",
            )


def default_alias(shipped: bool, language: str) -> str:
    """Return the default alias of an adapter for `language`. `shipped`: true for the base that ships with
    OneSeek.
    """
    if shipped:
        return f"oneseek-mini-{language}"
    return "oneseek-7b-zero" if language == "en" else f"oneseek-7b-zero-{language}"
