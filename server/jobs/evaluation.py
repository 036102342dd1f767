"""Evaluates adapters over HTTP, on a running server or on one that is started in this process."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from adapters.evaluation.endpoint import EndpointError, ModelEndpoint
from adapters.evaluation.judge import LanguageOf
from adapters.evaluation.questions import identity_questions, languages, read_questions
from adapters.evaluation.report import IdentityReport, base_of, judge_answers
from adapters.ledger import Record
from routing.selection import AUTOMATIC_MODEL
from server.asgi.app import uvicorn_config
from server.asgi.compose import Narrator, compose
from server.asgi.listening import bind
from server.config.settings import Settings
from server.config.values import SettingsError, closest
from server.jobs.languages import language_of_text
from server.live.catalogue import open_catalogues, open_ledger

LONGEST = 96
"""Maximum number of tokens of an answer. A longer answer counts as cut off."""
_AT_ONCE = 8


def evaluate_adapters(
    settings: Settings,
    url: str | None,
    adapters: Sequence[str],
    spoken: Sequence[str],
    questions: Path | None = None,
) -> list[IdentityReport]:
    """Evaluate the base, then each adapter, language by language.

    `adapters` are names that the server serves; empty means every alias. `spoken` are the languages of the
    questions; empty means all. `questions` is a file of questions in one language. Raises `SettingsError` for
    an unknown name, and `EndpointError` if the server fails.
    """
    asked = _questions(spoken, questions)
    detect = _detector(asked)
    if url is not None:
        key = settings.api_keys[0] if settings.api_keys else None
        try:
            target = ModelEndpoint.at(url, key)
        except ValueError as error:
            raise SettingsError("url", str(error)) from None
        return _evaluate(target, adapters, asked, detect)
    _check_served(settings, adapters)
    with running_server(settings) as target:
        return _evaluate(target, adapters, asked, detect)


def _check_served(settings: Settings, adapters: Sequence[str]) -> None:
    """Raise `SettingsError` for the name of an adapter that is not served. Called before an engine is
    started.
    """
    served = [catalogue.served for catalogue in open_catalogues(settings)]
    names = [
        name for one in served for name in (*one.aliases(), *(each.full_name for each in one.adapters()))
    ]
    _check_names(adapters, names)


def _questions(spoken: Sequence[str], file: Path | None) -> dict[str, list[str]]:
    """Return a map from each language code to the evaluation questions in that language."""
    if file is not None:
        if len(spoken) != 1:
            raise SettingsError(
                "questions",
                "the file holds questions in one language; name that language with --language, such as fr",
            )
        try:
            return {spoken[0].lower(): read_questions(file)}
        except (OSError, ValueError) as error:
            raise SettingsError("questions", str(error)) from None
    for language in spoken:
        if language.lower() not in languages():
            known = " and ".join(languages())
            raise SettingsError(
                "language",
                f"OneSeek has its own questions in {known} only; give a file of questions in {language!r} "
                "with --questions",
            )
    return {language.lower(): identity_questions(language.lower()) for language in spoken or languages()}


def _detector(codes: Iterable[str]) -> LanguageOf:
    try:
        return language_of_text(codes)
    except ValueError as error:
        raise SettingsError("language", str(error)) from None


def note(settings: Settings, found: Sequence[IdentityReport]) -> None:
    """Record the results in the ledger: one entry for each adapter, over all its languages.

    Raises `LedgerError`.
    """
    catalogues = open_catalogues(settings)
    names = catalogues[0].routing.names()
    ledger = open_ledger(settings)
    for name in dict.fromkeys(one.name for one in found if base_of(found, one) is not None):
        served = catalogues[names.index_of(name) or 0].served
        adapter = served.resolve(name)
        own = [one for one in found if one.name == name]
        questions = "".join(f"{question}\n" for one in own for question in one.questions)
        record = Record(
            action="eval",
            subject=adapter.full_name,
            inputs={
                "adapter": adapter.digest,
                "base": served.base_digest,
                "data": f"sha256:{hashlib.sha256(questions.encode()).hexdigest()}",
            },
            metrics={key: value for one in own for key, value in _figures(one, base_of(found, one))},
            details={"questions": {one.language: len(one.questions) for one in own}, "longest": LONGEST},
        )
        ledger.append(record)


def _figures(measured: IdentityReport, base: IdentityReport | None) -> Iterator[tuple[str, float]]:
    for name, figures in (("", measured), ("base_", base)):
        if figures is not None:
            yield f"{name}identity_{measured.language}", round(figures.identity_score, 4)
            yield f"{name}fidelity_{measured.language}", round(figures.language_fidelity, 4)


def _evaluate(
    target: ModelEndpoint, adapters: Sequence[str], asked: Mapping[str, Sequence[str]], detect: LanguageOf
) -> list[IdentityReport]:
    models = target.models()
    wanted = _names(models, adapters)
    versions = _versions(models)
    found: list[IdentityReport] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for language, questions in asked.items():
            for name in dict.fromkeys((*wanted.values(), *wanted)):
                version, base = versions.get(name), wanted.get(name, name)
                said = list(pool.map(partial(target.ask, version or name, longest=LONGEST), questions))
                judged = judge_answers(name, language, questions, said, detect)
                found.append(replace(judged, version=version, base=base))
    return found


def _names(models: Sequence[dict[str, Any]], asked: Sequence[str]) -> dict[str, str]:
    """Return a map from each adapter to evaluate to its base: the adapters in `asked`, else every alias.

    If the server has no adapters, the map holds only the base.
    """
    served = {str(entry["id"]): entry.get("parent") for entry in models}
    bases = [name for name, parent in served.items() if parent is None and name != AUTOMATIC_MODEL]
    if not bases:
        raise EndpointError("the server's /v1/models lists no base model, so there is nothing to evaluate")
    adapters = {name: str(parent) for name, parent in served.items() if parent is not None}
    _check_names(asked, list(adapters))
    wanted = list(asked) or [name for name in adapters if "@" not in name]
    return {name: adapters[name] for name in wanted} or {bases[0]: bases[0]}


def _check_names(asked: Sequence[str], served: Sequence[str]) -> None:
    for name in asked:
        if name not in served:
            there = ", ".join(served) or "none"
            raise SettingsError(
                "adapter", f"{name!r} is not served{closest(name, served)}; available: {there}"
            )


def _versions(models: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return a map from each alias to the full name of its active version, if the server reports it.

    A question to a version's full name is never answered by a canary.
    """
    served = {str(entry["id"]) for entry in models}
    roots = {str(entry["id"]): str(entry.get("root")) for entry in models if entry.get("parent") is not None}
    return {name: root for name, root in roots.items() if root in served}


@contextmanager
def running_server(settings: Settings) -> Generator[ModelEndpoint]:
    """Context manager that runs a server with `settings` in this process, on a free loopback port."""
    own = replace(settings, host="127.0.0.1", port=0, api_keys=(), request_timeout=None)
    app, _ = compose(own, Narrator(sys.stderr))
    sockets = bind(own.host, own.port)
    config = uvicorn_config(app, own)
    config.log_level = "error"
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), name="oneseek-eval")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        if not server.started:
            raise EndpointError("the engine for the evaluation did not start; the log above says why")
        yield ModelEndpoint(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
