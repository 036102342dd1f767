"""Find out what a server is: its kind, its models, its context length, and its tokens per word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.target.http import Endpoint, TargetError
from bench.text.prompts import FILES, count_words, texts

ServerKind = Literal["oneseek", "vllm", "llama.cpp", "other"]
MARKS: tuple[tuple[str, ServerKind], ...] = (
    ("oneseek_build_info", "oneseek"),
    ("vllm:", "vllm"),
    ("llamacpp:", "llama.cpp"),
)
"""Pairs (text, kind of server). A server whose /metrics contains the text is of this kind."""
AUTOMATIC = "oneseek"
"""Model name for which OneSeek chooses the adapter by the language of the prompt."""
UNKNOWN_TOKENS_PER_WORD = 3.0
"""Tokens per word that are assumed if the server has no /tokenize. The number is rather high, so that prompts
fit its context.
"""


@dataclass(frozen=True, slots=True)
class TargetServer:
    """A server under test, with what it reports about itself."""

    endpoint: Endpoint
    kind: ServerKind
    base: str
    adapters: tuple[str, ...]
    """Names of the adapters on the server, without versions."""
    context: int | None
    """Maximum number of tokens in prompt and answer together. None if the server does not report it."""
    tokens_per_word: Mapping[str, float] = field(default_factory=dict[str, float])
    by_language: Mapping[str, str] = field(default_factory=dict[str, str])
    """Maps each language code to the name of the adapter that answers in that language."""

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return self.endpoint.url

    def adapter_for(self, language: str) -> str:
        """Return the name of the adapter for a language. Raises `TargetError` if the server has none."""
        if language in self.by_language:
            return self.by_language[language]
        raise TargetError(
            f"{self.url} has no adapter that is known to answer in the language {language!r}; give --adapter "
            f"{language}=NAME with one of "
            f"{', '.join(self.adapters[:8]) or 'none (the server lists no adapters)'}"
        )

    def take_adapters(self, count: int) -> tuple[str, ...]:
        """Return the names of the first `count` adapters on the server. Raises `TargetError` if it
        has fewer.
        """
        if len(self.adapters) < count:
            raise TargetError(
                f"the scenario needs {count} adapters, but {self.url} has {len(self.adapters)} adapters; "
                "start a server that has enough with --start oneseek"
            )
        return self.adapters[:count]


def probe(endpoint: Endpoint, named: Mapping[str, str] | None = None) -> TargetServer:
    """Find out what the server at `endpoint` is. `named` maps language codes to adapters, if the user gives
    them. Raises `TargetError` if the server lists no models.
    """
    models = _models(endpoint)
    kind = _kind(endpoint)
    own = [model for model in models if model["id"] != AUTOMATIC or kind != "oneseek"]
    bases = [model for model in own if not model.get("parent") and "@" not in model["id"]]
    base = (bases or own)[0]
    adapters = tuple(
        model["id"]
        for model in own
        if model is not base and model not in bases[1:] and "@" not in model["id"]
    ) or tuple(model["id"] for model in bases[1:])
    languages = {code: _by_language(endpoint, kind, adapters, code) for code in FILES}
    languages |= dict(named or {})
    return TargetServer(
        endpoint,
        kind,
        base["id"],
        adapters,
        base.get("max_model_len") or (base.get("meta") or {}).get("n_ctx"),
        {code: _tokens_per_word(endpoint, base["id"], code) for code in FILES},
        {code: name for code, name in languages.items() if name},
    )


def _models(endpoint: Endpoint) -> list[dict[str, Any]]:
    status, content = endpoint.call("/v1/models")
    if status in (401, 403):
        raise TargetError(f"{endpoint.url}/v1/models answered {status}; give a key of this server with --key")
    try:
        listed: Any = json.loads(content) if status == 200 else None
    except ValueError:
        listed = None
    models: Any = listed.get("data") if isinstance(listed, dict) else None
    named = isinstance(models, list) and all(isinstance(one, dict) and "id" in one for one in models)
    if not models or not named:
        raise TargetError(
            f"{endpoint.url}/v1/models lists no models (status {status}); give the address of an "
            "OpenAI-compatible server"
        )
    return models


def _kind(endpoint: Endpoint) -> ServerKind:
    status, content = endpoint.call("/metrics")
    text = content.decode(errors="replace") if status == 200 else ""
    for mark, kind in MARKS:
        if mark in text:
            return kind
    return "other"


def _by_language(endpoint: Endpoint, kind: ServerKind, adapters: tuple[str, ...], code: str) -> str:
    """Return the adapter for a language: on OneSeek the one that the server reports, on others one whose name
    ends in the language's code. Empty if there is none.
    """
    if kind == "oneseek":
        found = endpoint.json(f"/v1/models/{code}")
        return str(found["id"]) if found and found.get("parent") else ""
    ends = (f"-{code}", f"_{code}")
    return next((name for name in adapters if name == code or name.endswith(ends)), "")


def _tokens_per_word(endpoint: Endpoint, model: str, code: str) -> float:
    sample = " ".join(texts(code).passages[:3])
    found = endpoint.json("/tokenize", {"model": model, "prompt": sample})
    if isinstance(found, dict) and found.get("count"):
        return int(found["count"]) / count_words(sample)
    return UNKNOWN_TOKENS_PER_WORD
