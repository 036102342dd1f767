"""A model behind OpenAI's API: a server to evaluate, or a teacher. Uses the standard library only."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 600.0
_TOLD = 2000
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


class EndpointError(RuntimeError):
    """A server does not answer as expected. The message holds its reply."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of its reply. None if there was no reply."""
        self.retry_after = retry_after
        """Seconds to wait, from Retry-After. None if it sent none."""
        self.passing = passing
        """True if a retry may succeed: the server is busy or did not answer."""


@dataclass(frozen=True, slots=True)
class EndpointAnswer:
    """One answer, and who gave it."""

    text: str
    ended: bool
    """True if the answer ended by itself rather than at the token limit."""
    model: str
    """The server's name for the model that answered."""
    fingerprint: str | None = None
    """The server's `system_fingerprint`. None if it sends none."""


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """A server, by its address without `/v1`."""

    url: str
    key: str | None = None
    timeout: float = _TIMEOUT
    """Seconds to wait for an answer."""

    @classmethod
    def at(cls, url: str, key: str | None = None, timeout: float = _TIMEOUT) -> ModelEndpoint:
        """Make an endpoint from an address with or without `/v1`. Raises `ValueError` if it is invalid or
        holds a password.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not a server's address; write http://HOST:PORT")
        if "@" in urlsplit(url).netloc:
            raise ValueError(
                "the server's address holds a user name or a password, which would be recorded; leave them "
                "out"
            )
        return cls(url.rstrip("/").removesuffix("/v1"), key, timeout)

    def models(self) -> list[dict[str, Any]]:
        """List the models that it serves. Raises `EndpointError`."""
        found: object = self._send("/v1/models", None).get("data")
        if not isinstance(found, list) or not found:
            raise EndpointError(f"{self.url}/v1/models does not list any model")
        return found

    def ask(self, model: str, question: str, *, longest: int) -> str:
        """Return the greedy answer. One that is cut off at `longest` tokens ends in `…`."""
        said = self.complete(model, question, longest=longest, temperature=0)
        return said.text if said.ended else said.text + "…"

    def complete(self, model: str, question: str, *, longest: int, **sampling: float) -> EndpointAnswer:
        """Return an answer of at most `longest` tokens. `sampling` uses OpenAI's names. Raises
        `EndpointError`.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": longest,
            **sampling,
        }
        answer = self._send("/v1/chat/completions", body)
        try:
            choice = answer["choices"][0]
            text, ended = str(choice["message"]["content"] or "").strip(), choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(f"{self.url} answers without choices: {str(answer)[:_TOLD]}") from error
        fingerprint = answer.get("system_fingerprint")
        return EndpointAnswer(
            text,
            ended,
            str(answer.get("model") or model),
            fingerprint if isinstance(fingerprint, str) else None,
        )

    def _send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                found: object = json.load(answer)
        except urllib.error.HTTPError as error:
            told = error.read(_TOLD).decode("utf-8", "replace")
            raise EndpointError(
                f"{self.url}{path} answers {error.code}: {told}",
                status=error.code,
                retry_after=_seconds(error.headers.get("Retry-After")),
                passing=error.code in _PASSING,
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
            raise EndpointError(f"{self.url}{path} does not answer: {why}", passing=True) from error
        if not isinstance(found, dict):
            raise EndpointError(f"{self.url}{path} did not answer with a JSON object: {str(found)[:_TOLD]}")
        return found


def _seconds(header: str | None) -> float | None:
    """Return the seconds in `Retry-After`, given as a number or a date (RFC 9110, 10.2.3). None if it is
    neither.
    """
    if header is None:
        return None
    if header.strip().isascii() and header.strip().isdigit():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
