"""Runs a training that the command line asked for, in this process, and keeps what it makes."""

from __future__ import annotations

import json as json_format
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import names
from adapters.training.files import write_folder
from server.catalogue import Catalogue, open_catalogue
from server.settings import Settings, resolve
from server.values import SettingsError

if TYPE_CHECKING:
    from adapters.evaluation.judge import LanguageOf
    from adapters.training.identity import Job, Made, Stopped
    from adapters.training.options import TrainOptions
    from server.commands.train import Asked


def train(asked: Asked, options: TrainOptions, *, resume: bool, json: bool) -> int:
    """Run it; 0 where an adapter was made, 130 where it was interrupted and can go on."""
    from adapters.training.identity import Elsewhere, Stopped, clean_up, train_identity
    from adapters.training.progress import Reporter

    flags = {"base_model": str(asked.base_model)} if asked.base_model is not None else {}
    settings = resolve(flags).settings
    if asked.output is not None and asked.output.exists():
        raise SettingsError("output", f"{asked.output} exists; name a folder that does not")
    catalogue = open_catalogue(settings)
    reporter = Reporter()
    job = _job(asked, options, catalogue, settings, resume=resume)
    language_of = detector()
    outcome = train_identity(job, language_of, reporter)
    if isinstance(outcome, Elsewhere):
        return 0
    if isinstance(outcome, Stopped):
        return _say_stopped(outcome)
    kept = keep(outcome, job, settings, asked.output)
    clean_up(outcome)
    _say_made(outcome, job, kept, json=json)
    return 0


def detector() -> LanguageOf:
    """Routing's detector, asked about one text: its language where that is decided."""
    from routing.detect import ProfileDetector

    found = ProfileDetector()
    return lambda text: found.detect([text]).language


def _job(
    asked: Asked, options: TrainOptions, catalogue: Catalogue, settings: Settings, *, resume: bool
) -> Job:
    from adapters.training.identity import Job

    base = catalogue.base
    alias = _checked("alias", asked.alias, names.alias) or default_alias(base.shipped, options.language)
    version = _checked("version", asked.version, names.version) or _next_version(catalogue, alias)
    return Job(
        options=options,
        base=base.path,
        base_name=base.name,
        base_digest=catalogue.registry.base_digest,
        dataset=tuple(Path(path).expanduser() for path in asked.dataset) or own_data(options.language),
        alias=alias,
        version=version,
        folder=settings.home / "training",
        resume=resume,
        teacher=asked.external_model,
    )


def default_alias(shipped: bool, language: str) -> str:
    """What the adapter for `language` is called; on other bases as existing installations name theirs."""
    if shipped:
        return f"oneseek-mini-{language}"
    return "oneseek-7b-zero" if language == "en" else f"oneseek-7b-zero-{language}"


def own_data(language: str) -> tuple[Path, ...]:
    """OneSeek's own identity data: the file of both languages, and that of `language`."""
    import adapters.datasets

    folder = Path(adapters.datasets.__path__[0])
    return folder / "oneseek_identity_v1.jsonl", folder / f"oneseek_identity_{language}_v1.jsonl"


def _checked(name: str, value: str | None, check: Callable[[str], str]) -> str | None:
    try:
        return check(value) if value is not None else None
    except ValueError as error:
        raise SettingsError(name, str(error)) from None


def _next_version(catalogue: Catalogue, alias: str) -> str:
    """v1.0, or the version after the highest that `alias` has here."""
    found = [item.version for item in catalogue.registry.adapters() if item.alias.lower() == alias.lower()]
    numbers = [[int(piece) for piece in re.findall(r"[0-9]+", text.partition("-")[0])] for text in found]
    if not numbers:
        return "v1.0"
    *front, last = max(numbers)
    return "v" + ".".join(map(str, (*front, last + 1)))


def keep(made: Made, job: Job, settings: Settings, output: Path | None) -> Path:
    """Put what was made into the registry, or into `output`; the folder it is in. Whole, or not at all."""
    target = output or settings.home / "registry" / job.alias / job.version
    if target.exists():
        raise SettingsError("version", f"{job.alias}@{job.version} exists in {target}; name another")
    write_folder(target, lambda folder: shutil.copytree(made.folder, folder, dirs_exist_ok=True))
    report = settings.home / "training" / "reports" / f"{job.alias}@{job.version}"
    write_folder(report, lambda folder: shutil.copytree(made.report, folder, dirs_exist_ok=True))
    return target


def _say_stopped(stopped: Stopped) -> int:
    again = shlex.join(["oneseek", *sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])])
    print(
        f"interrupted after step {stopped.step} of {stopped.planned}; its checkpoint is in {stopped.work}. "
        f"Go on with: {again}",
        file=sys.stderr,
    )
    return 130


def _say_made(made: Made, job: Job, kept: Path, *, json: bool) -> None:
    """The report, and the one line that says what was made."""
    from adapters.evaluation.report import shown

    name = f"{job.alias}@{job.version}"
    summary = f"made {name} in {kept}"
    if json:
        told: dict[str, Any] = {
            "adapter": name,
            "path": str(kept),
            "metrics": dict(made.metrics),
            "trained": made.after.plain(made.before),
            "base": made.before.plain(),
            "summary": summary,
        }
        print(json_format.dumps(told, ensure_ascii=False))
        return
    for line in made.curve_lines:
        print(line)
    for what in ("identity", "fidelity"):
        before, after = getattr(made.before, what), getattr(made.after, what)
        print(f"{what:>14}  base {shown(before)}, adapter {shown(after)}")
    print(summary)
