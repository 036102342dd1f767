"""Asks OpenAI-compatible services the same question as this server's own models, and streams their answers.

Only services in the settings can be asked. Redirects are not followed, cookies are not kept, and answers are
limited in bytes and time. A service's own error message is not passed on, because some messages repeat a part
of the API key.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import msgspec

from server.config.external import ExternalModelOptions
from server.config.version import oneseek_version
from server.errors import ApiError, ErrorReply
from server.request import Delta, FinishReason, Timing, Usage

if TYPE_CHECKING:  # servers without external services never load it
    import httpx2

MAX_ANSWER = 4 * 1024 * 1024
"""Maximum size in bytes of an external service's answer, including its events."""
MAX_CONNECTIONS = 32
"""Maximum number of concurrent questions to all external services; further questions wait, within their time
limits.
"""

_NO_HEADERS: Mapping[str, str] = {}

log = logging.getLogger("oneseek.external")


@dataclass(frozen=True, slots=True)
class ExternalQuestion:
    """The question that is sent to external services."""

    messages: list[dict[str, Any]]
    """The conversation as messages in OpenAI's format."""
    fields: Mapping[str, Any]
    """The request's sampling fields that OpenAI's API has."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    """A chunk of an external service's stream, or its whole answer."""

    choices: list[_Choice] = []
    usage: _Tokens | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.Encoder().encode


class ExternalModel:
    """The client of one external service."""

    def __init__(self, options: ExternalModelOptions, key: str | None, client: httpx2.AsyncClient) -> None:
        self.name = options.name
        self._options = options
        self._client = client
        self._url = options.url.rstrip("/") + "/chat/completions"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            # A compressed answer could be of any size.
            "Accept-Encoding": "identity",
        }
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    async def answer(
        self, question: ExternalQuestion, headers: Mapping[str, str] = _NO_HEADERS
    ) -> AsyncGenerator[Delta, None]:
        """Stream the external service's answer. `headers` are added to the request.

        Raises `ApiError`: 502 if the service fails, 504 if it takes too long.
        """
        import httpx2

        arrived = time.perf_counter()
        try:
            async with asyncio.timeout(self._options.timeout), self._asked(question, headers) as response:
                reader = _AnswerReader(arrived)
                async for data in self._payloads(response):
                    delta = self._read(reader, data)
                    if delta is not None:
                        yield delta
                if reader.finish_reason is None:
                    raise self._failed(
                        "the external service broke off before its answer was complete; try again"
                    )
                yield reader.last()
        except (TimeoutError, httpx2.TimeoutException):
            message = (
                f"The external service {self.name} did not answer within {self._options.timeout:g} seconds."
            )
            reply = ErrorReply(504, message, type="server_error", code="external_model_timeout")
            raise ApiError(reply) from None
        except httpx2.HTTPError as error:
            log.warning(
                "the connection to the external model %s failed with %s; the client gets the error "
                "external_model_failed for this model, and its request fails with a 502 only if no other "
                "model answers; check the model's url in the setting external_models",
                self.name,
                type(error).__name__,
            )
            raise self._failed(
                "the external service could not be reached, or the connection broke; try again later"
            ) from None

    @asynccontextmanager
    async def _asked(
        self, question: ExternalQuestion, headers: Mapping[str, str]
    ) -> AsyncGenerator[httpx2.Response]:
        body = {
            "model": self._options.model,
            "messages": question.messages,
            **question.fields,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self._client.stream(
            "POST", self._url, content=_encode(body), headers={**headers, **self._headers}
        ) as response:
            if response.status_code != 200:
                log.warning(
                    "the service of the external model %s returned HTTP status %d instead of an answer; the "
                    "client gets the error external_model_failed for this model, and its request fails with "
                    "a 502 only if no other model answers; check the service's url, model and API key in "
                    "the setting external_models",
                    self.name,
                    response.status_code,
                )
                raise self._failed(
                    f"the external service answered with HTTP status {response.status_code}; try again later"
                )
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise self._failed(
                    "the external service compressed its answer although the request forbids this, so the "
                    "server dropped the answer; turn off compression at the service"
                )
            yield response

    async def _payloads(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """Yield the JSON of each event, or of the whole answer if the service does not stream."""
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        pending, size = b"", 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > MAX_ANSWER:
                raise self._failed(
                    f"the external service sent more than {MAX_ANSWER} bytes; its answer was dropped"
                )
            pending += chunk
            if streams:
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if data and line.startswith(b"data:"):
                        yield data
        if pending and not streams:
            yield pending

    def _read(self, reader: _AnswerReader, data: bytes) -> Delta | None:
        try:
            return reader.read(_decode(data))
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise self._failed(
                "the external service's answer was dropped, since it is not a chat completion"
            ) from None

    def _failed(self, why: str) -> ApiError:
        message = f"The external model {self.name} failed: {why}."
        return ApiError(ErrorReply(502, message, type="server_error", code="external_model_failed"))


class _AnswerReader:
    """Converts one answer of an external service to deltas (pieces). `arrived` is the start of the request in
    seconds of `time.perf_counter()`.
    """

    def __init__(self, arrived: float) -> None:
        self.finish_reason: FinishReason | None = None
        self._usage = Usage(0, 0, 0)
        self._arrived = arrived
        self._first: float | None = None

    def read(self, chunk: _Chunk) -> Delta | None:
        """Return the new text in an event; None if there is no text. Raises `ValueError` if the service
        withheld the answer.
        """
        if chunk.usage is not None:
            self._usage = Usage(max(0, chunk.usage.prompt_tokens), 0, max(0, chunk.usage.completion_tokens))
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            self.finish_reason = "length" if choice.finish_reason == "length" else "stop"
            if choice.finish_reason not in ("stop", "length"):
                raise ValueError(choice.finish_reason)
        message = choice.delta or choice.message
        if message is None or not message.content:
            return None
        self._first = self._first or time.perf_counter()
        return Delta(message.content)

    def last(self) -> Delta:
        """Return the last delta of the answer, with the service's token counts."""
        now = time.perf_counter()
        timing = Timing(self._arrived, self._arrived, self._first or now, now)
        return Delta("", finish_reason=self.finish_reason, usage=self._usage, timing=timing)


class ExternalModels:
    """Clients of all external services of a server. The services' names are case-insensitive."""

    def __init__(self, models: Mapping[str, ExternalModel], client: httpx2.AsyncClient | None) -> None:
        self._models = models
        self._client = client

    def find(self, name: str) -> ExternalModel | None:
        """Return the external service called `name`; None if it is not in the settings."""
        return self._models.get(name.strip().lower())

    async def close(self) -> None:
        """Close all connections to the external services."""
        if self._client is not None:
            await self._client.aclose()


NO_EXTERNAL_MODELS = ExternalModels({}, None)


def open_external_models(
    options: Mapping[str, ExternalModelOptions], environ: Mapping[str, str]
) -> ExternalModels:
    """Create the clients of all external services, with their API keys from `environ`, without connecting.

    Raises `SettingsError` if a key is missing or invalid.
    """
    if not options:
        return NO_EXTERNAL_MODELS
    keys = {name: one.read_key(environ) for name, one in options.items()}
    import httpx2

    for name in ("httpx2", "httpcore2"):  # they log each request, and on debug its headers
        logging.getLogger(name).setLevel(logging.WARNING)
    client = httpx2.AsyncClient(
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"User-Agent": f"oneseek/{oneseek_version()}"},
        follow_redirects=False,
        timeout=None,
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
    )
    return ExternalModels(
        {name: ExternalModel(one, keys[name], client) for name, one in options.items()}, client
    )
