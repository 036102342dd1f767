"""A client for a server with OpenAI's API, used to evaluate a model or to ask a teacher. It uses only the
standard library.
"""

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
    """A server did not answer, or answered with an error or unexpected data. The message holds the server's
    reply.
    """

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
    """An answer of a model on a server, with the names of the model and system that gave it."""

    text: str
    ended: bool
    """True if the model ended the answer itself; False if the token limit cut it off."""
    model: str
    """Name of the model that answered, as the server reports it."""
    fingerprint: str | None = None
    """The `system_fingerprint` in the server's reply. None if the reply has none."""


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """A server with OpenAI's API. `url` is its address without `/v1`, and `key` is the API key."""

    url: str
    key: str | None = None
    timeout: float = _TIMEOUT
    """Maximum number of seconds to wait for the server before a request fails."""

    @classmethod
    def at(cls, url: str, key: str | None = None, timeout: float = _TIMEOUT) -> ModelEndpoint:
        """Make an endpoint from a server's address, with or without `/v1`. Raises `ValueError` if the address
        is invalid or holds a user name or password.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not the address of a server; write it as http://HOST:PORT")
        if "@" in urlsplit(url).netloc:
            raise ValueError(
                "the server's address holds a user name or a password, which reports would record; remove "
                "it from the address"
            )
        return cls(url.rstrip("/").removesuffix("/v1"), key, timeout)

    def models(self) -> list[dict[str, Any]]:
        """Return the models that the server lists at /v1/models. Raises `EndpointError`, also if there are
        none.
        """
        found: object = self._send("/v1/models", None).get("data")
        if not isinstance(found, list) or not found:
            raise EndpointError(
                f"the server at {self.url} lists no model at /v1/models; check its address and its models"
            )
        return found

    def ask(self, model: str, question: str, *, longest: int) -> str:
        """Return the model's greedy answer to `question`. An answer that is cut off at `longest` tokens ends
        in `…`.
        """
        said = self.complete(model, question, longest=longest, temperature=0)
        return said.text if said.ended else said.text + "…"

    def complete(self, model: str, question: str, *, longest: int, **sampling: float) -> EndpointAnswer:
        """Return the model's answer to `question`, of at most `longest` tokens. `sampling` holds sampling
        parameters under OpenAI's names. Raises `EndpointError`.
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
            raise EndpointError(
                f"the reply of the server at {self.url} lacks the model's answer, choices[0].message; the "
                f"reply is: {str(answer)[:_TOLD]}"
            ) from error
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
                f"the server at {self.url}{path} answers with HTTP status {error.code}: {told}",
                status=error.code,
                retry_after=_seconds(error.headers.get("Retry-After")),
                passing=error.code in _PASSING,
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
            raise EndpointError(
                f"the server at {self.url}{path} does not answer ({why}); check that it runs at this address",
                passing=True,
            ) from error
        if not isinstance(found, dict):
            raise EndpointError(
                f"the server's answer to {self.url}{path} is not a JSON object, so the server may lack "
                f"OpenAI's API; the answer is: {str(found)[:_TOLD]}"
            )
        return found


def _seconds(header: str | None) -> float | None:
    """Return the number of seconds in a `Retry-After` header, which holds a number or a date (RFC 9110,
    10.2.3). None if the header is missing or invalid.
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
