"""Send questions to a server, several at once, and collect the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.quality.questions import LanguageQuestion
from bench.target.http import Endpoint, TargetError
from bench.text.prompts import count_words


@dataclass(frozen=True, slots=True)
class QualityAnswer:
    """The answer of a model to a question."""

    question: LanguageQuestion
    asked: str
    """The model that the request named."""
    answered_by: str
    """Alias of the adapter that answered: from the receipt in OneSeek's answer (an object that says how the
    answer was made) if there is one, else the body's `model`.
    """
    text: str


def ask_all(
    endpoint: Endpoint, model: str, asked: Sequence[LanguageQuestion], tokens: int, at_once: int
) -> list[QualityAnswer]:
    """Send each question to `model` with greedy decoding, and return the answers. Raises `TargetError` if a
    request fails.
    """
    with ThreadPoolExecutor(at_once) as pool:
        pending = [pool.submit(_ask, endpoint, model, question, tokens) for question in asked]
        return [answer.result() for answer in pending]


def _ask(endpoint: Endpoint, model: str, question: LanguageQuestion, tokens: int) -> QualityAnswer:
    body = {"model": model, "messages": [{"role": "user", "content": question.text}]}
    told = _post(endpoint, "/v1/chat/completions", body | {"max_tokens": tokens, "temperature": 0})
    named = told.get("receipt", {}).get("adapter") or told.get("model") or ""
    text = told["choices"][0]["message"].get("content") or ""
    return QualityAnswer(question, model, str(named).partition("@")[0], text)


def log_probability_per_word(endpoint: Endpoint, model: str, passages: Sequence[str]) -> float | None:
    """Return the mean log probability of a word in `passages`, in nats. None if the server does not support
    `prompt_logprobs`.
    """
    total, words = 0.0, 0
    for passage in passages:
        body = {"model": model, "prompt": passage, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        status, content = endpoint.call("/v1/completions", body)
        if status != 200:
            return None
        listed = json.loads(content)["choices"][0].get("prompt_logprobs")
        if not listed:
            return None
        total += sum(next(iter(entry.values()))["logprob"] for entry in listed if entry)
        words += count_words(passage)
    return total / words


def _post(endpoint: Endpoint, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, content = endpoint.call(path, body, {"X-OneSeek-Receipt": "body"})
    if status != 200:
        said = content.decode(errors="replace")[:300]
        raise TargetError(
            f"{endpoint.url}{path} answered a question for the model {body['model']!r} with status {status}: "
            f"{said}"
        )
    return json.loads(content)
