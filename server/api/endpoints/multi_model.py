"""Answers `POST /api/oqt/multi-model-query`: asks several models the same question and compares their
answers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapters.errors import UnknownAdapterError
from routing.route import RouteQuery, UnknownNameError
from routing.selection import BASE, HEADER, SelectionError
from server.api.endpoints.context import Context, EveryName, question, reply
from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.multi_model import MAX_VOICES, MULTI_MODEL_REFUSED, MultiModelFields
from server.api.parsing.messages import opening, system_prompt, user_turns
from server.api.parsing.multi_model import conversation, external_question
from server.api.parsing.receipts import asks_receipt
from server.api.parsing.sampling import voice_sampling
from server.api.rendering.voice_answers import (
    VoiceAnswer,
    closing_events,
    delta_event,
    failure_events,
    opening_event,
    voice_event,
    whole_answer,
)
from server.api.wire.stream import PieceStream
from server.errors import ApiError, UnsupportedRequestError, bad_field
from server.exchange import EXCHANGE, Exchange
from server.request import Delta, Sampling
from server.serving.length import AnswerLength
from server.serving.one_thread import OneThread
from server.serving.service import BaseService
from server.serving.voices.comparing import find_consensus
from server.serving.voices.consensus import ComparedAnswer, Consensus
from server.serving.voices.external import ExternalModel
from server.serving.voices.panel import count_voices, hold_places, run_voices
from server.serving.voices.voice import ExternalVoice, LocalVoice, Voice, seat
from server.text.chat_template import Message
from server.text.tokenizer import TemplateError

VoiceQuery = Callable[[str], RouteQuery]
"""Type of a function that returns what the router needs to know to choose the model with a given name."""

log = logging.getLogger("oneseek.api")


class MultiModel:
    """Handler of `POST /api/oqt/multi-model-query`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, request: Request) -> Response:
        """Answer a question with the answers of several models and their consensus, all at once or
        streamed.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        _check_headers(exchange)
        aside = partial(self._context.aside, request)
        value = await self._context.read(request, bounds.MULTI_MODEL)
        self._check_places(exchange, value)
        body = await aside(lambda: to_generation(value, MultiModelFields, refused=MULTI_MODEL_REFUSED))
        messages = await aside(lambda: conversation(body))
        turns, begins, system = user_turns(messages), opening(messages, value), system_prompt(messages)
        voices = await self._seat(exchange, body, lambda name: question(request, name, turns, begins, system))
        local = [voice for voice in voices if isinstance(voice, LocalVoice)]
        hold_places(exchange, local)
        count_voices(exchange, voices)
        await self._prepare(local, body, messages)
        answers = [VoiceAnswer(number, voice) for number, voice in enumerate(voices)]
        answer_id = "multi-" + exchange.answer_id
        if body.stream:
            events = self._events(exchange, answers, answer_id, body.agreement_threshold)
            return PieceStream(events, failure_events)
        async with aclosing(run_voices(exchange, voices, self._context.metrics)) as events:
            async for items in events:
                for number, item in items:
                    await self._take(exchange, answers[number], item)
        _raise_if_all_failed(answers)
        consensus = await self._consensus(exchange, answers, body.agreement_threshold)
        return reply(whole_answer(answer_id, answers, consensus))

    def _check_places(self, exchange: Exchange, value: Mapping[str, Any]) -> None:
        """Refuse the request early if the queue is full for a model that the body's `models` names."""
        models: object = value.get("models")
        if not isinstance(models, list):
            return
        for name in models[:MAX_VOICES]:
            if isinstance(name, str) and self._external(name) is None:
                gate = self._context.service_named(name).generation.gate
                if gate.places.full:
                    gate.check_body(exchange, name, 1)

    def _external(self, name: str) -> ExternalModel | None:
        """Return the external service called `name`; None if there is no such service, or if a local adapter
        has the name.
        """
        found = self._context.externals.find(name)
        return None if found is None or EveryName(self._context.services).knows(name) else found

    def _default_names(self) -> list[str]:
        """Return the models to ask if the request names none: the first base that generates text, and each
        language's adapter.
        """
        runtimes = [one.runtime for one in self._context.services]
        writing = [one for one in runtimes if one.info.task == "generate"]
        base = writing[0].name if writing and writing[0] is not runtimes[0] else BASE
        spoken = [alias for one in writing for alias in one.router.voices(one.served.snapshot)]
        return [base, *dict.fromkeys(spoken)][:MAX_VOICES]

    async def _seat(self, exchange: Exchange, body: MultiModelFields, ask: VoiceQuery) -> list[Voice]:
        """Return the voices (models that answer one question together) of a request, without loading them.

        Raises `ApiError` for a name that is unknown or repeated, with its path, such as `models[1]`.
        """
        voices: list[Voice] = []
        local: list[LocalVoice] = []
        taken: dict[str, int] = {}
        for index, name in enumerate(self._default_names() if body.models is None else body.models):
            path, key = f"models[{index}]", name.strip().lower()
            if key in taken:
                raise _twice(path, name, f"models[{taken[key]}]")
            taken[key] = index
            external = self._external(name)
            if external is not None:
                asked, counted = external_question(body, external.name), exchange.voice()
                counted.adapter, counted.version = "external", external.name
                voices.append(ExternalVoice(external, counted, asked, [name]))
                continue
            voice = await self._local(exchange, name, path, ask)
            twin = seat(local, voice)
            if twin is not None:
                raise _twice(path, name, repr(twin.asked[0]))
            if voice in local:
                voices.append(voice)
        return voices

    async def _local(self, exchange: Exchange, name: str, path: str, ask: VoiceQuery) -> LocalVoice:
        own = exchange.voice()
        try:
            service, route = await self._context.bases.choose(own, ask(name))
            decision = await service.generation.resolve(own, ask(name), route=route)
        except (UnknownNameError, UnknownAdapterError):
            exchange.adapter = "unknown"
            message = f"{UnknownNameError(name, path)}."
            raise bad_field(path, message, code="model_not_found", status=404) from None
        except SelectionError as error:
            message = str(SelectionError(error.value, error.remedy, path))
            raise bad_field(path, message, code="bad_selection") from None
        except UnsupportedRequestError as error:
            raise bad_field(path, str(error), code="unsupported_value") from None
        return LocalVoice(service, own, decision, [name])

    async def _prepare(
        self, voices: Sequence[LocalVoice], body: MultiModelFields, messages: Sequence[Message]
    ) -> None:
        """Tokenize the question for each model. If a model's base cannot answer the question, record the
        error in the voice instead.
        """
        made: dict[str, tuple[tuple[int, ...], Sampling] | Exception] = {}
        for voice in voices:
            name = voice.service.runtime.name
            if name not in made:
                try:
                    made[name] = await self._prompt(voice.service, body, messages)
                except (ApiError, TemplateError) as error:
                    made[name] = error
            found = made[name]
            if isinstance(found, Exception):
                voice.refusal = found
            else:
                voice.prompt, voice.sampling = found

    async def _prompt(
        self, service: BaseService, body: MultiModelFields, messages: Sequence[Message]
    ) -> tuple[tuple[int, ...], Sampling]:
        field = "messages" if body.question is None else "question"
        prompt = await service.generation.chat(messages, field)
        default = self._context.default_length(service)
        length = AnswerLength(body.max_tokens, default, (field, "max_tokens"))
        sampling = voice_sampling(body, service.defaults)
        return prompt, length.fit(sampling, len(prompt), service.runtime.info)

    async def _events(
        self, exchange: Exchange, answers: Sequence[VoiceAnswer], answer_id: str, threshold: float | None
    ) -> AsyncGenerator[bytes]:
        """Stream the answers as events, beginning when a model has generated its first token. If all models
        fail before that, raise an error.
        """
        pending = [opening_event(answer_id, answers)]
        begun = False
        voices = [answer.voice for answer in answers]
        async with aclosing(run_voices(exchange, voices, self._context.metrics)) as events:
            async for items in events:
                for number, item in items:
                    answer = answers[number]
                    await self._take(exchange, answer, item)
                    if isinstance(item, Delta):
                        pending.append(delta_event(number, item.text))
                    if answer.ended:
                        pending.append(voice_event(answer))
                begun = begun or any(answer.begun for answer in answers)
                written = b"".join(pending) if begun else b""
                if written:
                    pending.clear()
                    yield written
        if not begun:
            _raise_if_all_failed(answers)
        yield closing_events(await self._consensus(exchange, answers, threshold))

    async def _take(self, exchange: Exchange, answer: VoiceAnswer, item: Delta | Exception) -> None:
        """Add a piece of a model's answer, or its error. Once the answer is complete, detect its language."""
        answer.add(item)
        if isinstance(item, Exception):
            if answer.error is not None and answer.error.code == "internal_error":
                log.error(
                    "request %s asks several models, and one of the models failed with an unexpected error; "
                    "the other models still answer",
                    exchange.request_id,
                    exc_info=item,
                )
        elif answer.ended:
            router, text = self._context.services[0].runtime.router, answer.answer.text
            answer.read(await self._aside.run(lambda: router.read(text)))

    async def _consensus(
        self, exchange: Exchange, answers: Sequence[VoiceAnswer], threshold: float | None
    ) -> Consensus:
        compared = [
            ComparedAnswer(answer.number, answer.compared_in, answer.answer.text)
            for answer in answers
            if answer.answered
        ]
        embedding = (one for one in self._context.services if one.runtime.info.task == "embed")
        return await find_consensus(exchange, compared, self._aside, next(embedding, None), threshold)

    @property
    def _aside(self) -> OneThread:
        return self._context.one_thread


def _check_headers(exchange: Exchange) -> None:
    asks_receipt(exchange)  # every voice has one anyway
    if HEADER.lower().encode() in exchange.headers:
        raise bad_field(
            HEADER,
            f"This endpoint does not use the header {HEADER}; remove it, and list the adapters in models.",
            code="invalid_value",
        )


def _twice(path: str, name: str, first: str) -> ApiError:
    message = f"{path} is {name[:80]!r}, which is the same model as {first}; list each model once."
    return bad_field(path, message, code="invalid_value")


def _raise_if_all_failed(answers: Sequence[VoiceAnswer]) -> None:
    """If no model has answered, raise the error of the first failed model; local models come before external
    services.
    """
    if any(answer.answered for answer in answers):
        return
    for answer in sorted(answers, key=lambda one: not isinstance(one.voice, LocalVoice)):
        if answer.cause is not None:
            raise answer.cause
