"""A model behind OpenAI's API: a server that is evaluated, or a teacher. Standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

_TIMEOUT = 600.0
_TOLD = 2000


class EndpointError(RuntimeError):
    """A server does not answer as it should; says what it said instead."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server, by its address without `/v1`."""

    url: str
    key: str | None = None

    @classmethod
    def at(cls, url: str, key: str | None = None) -> Endpoint:
        """From an address with or without `/v1`. Raises `ValueError` where it is none."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no address; write http://HOST:PORT")
        return cls(url.rstrip("/").removesuffix("/v1"), key)

    def models(self) -> list[dict[str, Any]]:
        """What it serves. Raises `EndpointError`."""
        found: object = self._send("/v1/models", None).get("data")
        if not isinstance(found, list) or not found:
            raise EndpointError(f"{self.url}/v1/models names no model")
        return found

    def ask(self, model: str, question: str, *, longest: int) -> str:
        """The greedy answer; one that does not end within `longest` tokens ends in `…`."""
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": longest,
        }
        answer = self._send("/v1/chat/completions", body)
        try:
            choice = answer["choices"][0]
            text, ended = str(choice["message"]["content"] or "").strip(), choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(f"{self.url} answers without choices: {str(answer)[:_TOLD]}") from error
        return text if ended else text + "…"

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
            told = error.read(_TOLD).decode("utf-8", "replace")
            raise EndpointError(f"{self.url}{path} answers {error.code}: {told}") from error
        except (OSError, ValueError) as error:
            raise EndpointError(f"{self.url}{path} does not answer: {error}") from error
