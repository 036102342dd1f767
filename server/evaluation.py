"""Evaluates adapters over HTTP: a running server's, or those of one started for it in this process."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import uvicorn

from adapters.evaluation.questions import identity_questions, languages
from adapters.evaluation.report import Measured, measure
from routing.detect import ProfileDetector
from routing.route import AUTOMATIC_MODEL
from server.app import uvicorn_config
from server.listening import bind
from server.settings import Settings
from server.startup import Narrator, compose
from server.values import SettingsError, closest

LONGEST = 96
"""Tokens after which an answer counts as broken off."""
_AT_ONCE = 8
_TIMEOUT = 600.0


class EvaluationError(RuntimeError):
    """The server that is evaluated does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server that speaks OpenAI's API."""

    url: str
    key: str | None = None

    def models(self) -> list[dict[str, Any]]:
        """What it serves. Raises `EvaluationError`."""
        return self._send("/v1/models", None)["data"]

    def ask(self, model: str, question: str) -> str:
        """The greedy answer; one that does not end within `LONGEST` tokens ends in `…`."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": LONGEST,
        }
        choice = self._send("/v1/chat/completions", body)["choices"][0]
        text = str(choice["message"]["content"] or "").strip()
        return text if choice["finish_reason"] == "stop" else text + "…"

    def _send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            told = error.read(2000).decode("utf-8", "replace")
            raise EvaluationError(f"{self.url}{path} answers {error.code}: {told}") from error
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{self.url}{path} does not answer: {error}") from error


def evaluate(
    settings: Settings, url: str | None, adapters: Sequence[str], spoken: Sequence[str]
) -> list[Measured]:
    """The base, then each adapter, for one language after the other.

    `adapters` are names that the server serves, none for every alias; `spoken` languages of the questions,
    none for all. Raises `SettingsError` for an unknown name, `EvaluationError` for a server that fails.
    """
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise SettingsError("url", f"{url!r} is no address; write http://HOST:PORT")
        key = settings.api_keys[0] if settings.api_keys else None
        return _evaluate(Target(url.rstrip("/").removesuffix("/v1"), key), adapters, spoken)
    with _started(settings) as target:
        return _evaluate(target, adapters, spoken)


def _evaluate(target: Target, adapters: Sequence[str], spoken: Sequence[str]) -> list[Measured]:
    base, wanted = _names(target.models(), adapters)
    detector = ProfileDetector()
    found: list[Measured] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for language in spoken or languages():
            questions = identity_questions(language)
            for name in (base, *wanted):
                said = list(pool.map(partial(target.ask, name), questions))
                found.append(
                    measure(name, language, questions, said, lambda text: detector.detect([text]).language)
                )
    return found


def _names(models: Sequence[dict[str, Any]], asked: Sequence[str]) -> tuple[str, list[str]]:
    """The base's name, and those of the adapters to evaluate."""
    served = {str(entry["id"]): entry.get("parent") for entry in models}
    bases = [name for name, parent in served.items() if parent is None and name != AUTOMATIC_MODEL]
    if not bases:
        raise EvaluationError("the server names no base model in /v1/models")
    adapters = [name for name, parent in served.items() if parent is not None]
    for name in asked:
        if name not in adapters:
            there = ", ".join(adapters) or "none"
            raise SettingsError(
                "adapter", f"{name!r} is not served{closest(name, adapters)}; there are: {there}"
            )
    return bases[0], list(asked) or [name for name in adapters if "@" not in name]


@contextmanager
def _started(settings: Settings) -> Generator[Target]:
    """A server of `settings` in this process, on a free port of the loopback, for as long as it is needed."""
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
            raise EvaluationError("the engine did not start; the lines above say why")
        yield Target(f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
