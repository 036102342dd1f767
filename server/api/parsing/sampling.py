"""Converts a request's sampling fields to engine parameters, and checks token ids against the model's
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from server.api.fields.generation import (
    ChatFields,
    CompletionFields,
    GenerationFields,
    OneModelFields,
    SamplingFields,
)
from server.api.fields.responses import LOGPROBS_INCLUDED, ResponseFields
from server.errors import bad_field
from server.metrics.engine_state import EngineInfo
from server.request import Sampling
from server.serving.sampling_defaults import LEAST_TOP_P, SamplingDefaults

_SEEDS = 2**64
MAX_SCORES = 1_000_000
"""Maximum number of prompt log probabilities in one answer: about 50 MB of JSON."""
PLAIN = SamplingDefaults()
"""OpenAI's default values, for sampling fields that a request leaves out."""

Number = TypeVar("Number", int, float)


def chat_sampling(body: ChatFields, info: EngineInfo, defaults: SamplingDefaults = PLAIN) -> Sampling:
    """Return the sampling parameters of a chat completion. `max_tokens` is 0 if the request does
    not set it.
    """
    if body.top_logprobs and not body.logprobs:
        raise bad_field(
            "top_logprobs",
            "top_logprobs is set without logprobs; set logprobs to true, or remove top_logprobs.",
            code="invalid_value",
        )
    _check_streaming(body)
    logprobs = body.top_logprobs if body.logprobs else None
    return _sampling(body, info, defaults, logprobs, body.prompt_logprobs, body.max_tokens)


def completion_sampling(
    body: CompletionFields, info: EngineInfo, defaults: SamplingDefaults = PLAIN
) -> Sampling:
    """Return the sampling parameters of a text completion. If the request has `echo` and `logprobs`, the
    prompt gets log probabilities too.
    """
    prompt_logprobs = body.prompt_logprobs
    if prompt_logprobs is None and body.echo:
        prompt_logprobs = body.logprobs
    _check_streaming(body)
    return _sampling(body, info, defaults, body.logprobs, prompt_logprobs, body.max_tokens)


def response_sampling(body: ResponseFields, info: EngineInfo, defaults: SamplingDefaults = PLAIN) -> Sampling:
    """Return the sampling parameters of a /v1/responses request. `max_tokens` is 0 if the request does not
    set a length.
    """
    if body.stream_options is not None and not body.stream:
        raise bad_field(
            "stream_options",
            "stream_options is set without stream; set stream to true, or remove stream_options.",
            code="invalid_value",
        )
    if body.top_logprobs and not body.with_logprobs:
        raise bad_field(
            "top_logprobs",
            f"top_logprobs works only if include has {LOGPROBS_INCLUDED!r}; add it to include.",
            code="invalid_value",
        )
    logprobs = body.top_logprobs if body.with_logprobs else None
    return _sampling(body, info, defaults, logprobs, None, body.max_output_tokens)


def _check_streaming(body: GenerationFields) -> None:
    if body.stream_options is not None and not body.stream:
        raise bad_field(
            "stream_options",
            "stream_options is set without stream; set stream to true, or remove stream_options.",
            code="invalid_value",
        )
    if body.stream and body.prompt_logprobs is not None:
        raise bad_field(
            "prompt_logprobs",
            "prompt_logprobs cannot be streamed; set stream to false, or remove prompt_logprobs.",
            code="invalid_value",
        )


def voice_sampling(
    body: SamplingFields, defaults: SamplingDefaults = PLAIN, max_tokens: int | None = None
) -> Sampling:
    """Return the sampling parameters for one of several models that answer a question. `max_tokens` is 0 if
    the request does not set it.
    """
    return Sampling(
        max_tokens=max_tokens or 0,
        temperature=_given(body.temperature, defaults.temperature),
        top_p=max(LEAST_TOP_P, _given(body.top_p, defaults.top_p)),
        top_k=max(0, _given(body.top_k, defaults.top_k)),
        min_p=_given(body.min_p, defaults.min_p),
        repetition_penalty=_given(body.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        seed=None if body.seed is None else body.seed % _SEEDS,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        stop=tuple(dict.fromkeys([body.stop] if isinstance(body.stop, str) else body.stop)),
    )


def _sampling(
    body: OneModelFields,
    info: EngineInfo,
    defaults: SamplingDefaults,
    logprobs: int | None,
    prompt_logprobs: int | None,
    max_tokens: int | None,
) -> Sampling:
    for index, token in enumerate(body.stop_token_ids):
        _in_vocabulary(f"stop_token_ids[{index}]", token, info)
    return replace(
        voice_sampling(body, defaults, max_tokens),
        logit_bias=_biases(body.logit_bias, info),
        stop_token_ids=tuple(dict.fromkeys(body.stop_token_ids)),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _given(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def _biases(biases: Mapping[str, float], info: EngineInfo) -> dict[int, float]:
    checked: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise bad_field(
                "logit_bias",
                f"logit_bias: {key[:40]!r} is not a token id; use token ids (whole numbers) as keys.",
                code="invalid_value",
            )
        checked[_in_vocabulary("logit_bias", int(key), info)] = bias
    return checked


def _in_vocabulary(field: str, token: int, info: EngineInfo) -> int:
    if token >= info.vocabulary:
        raise bad_field(
            field,
            f"{field}: token id {token} is not in the model's vocabulary; use ids below {info.vocabulary}.",
            code="invalid_value",
        )
    return token


def check_ids(ids: list[int], field: str, info: EngineInfo) -> tuple[int, ...]:
    """Return a client's token ids. Raises `ApiError` for an id that is not in the model's vocabulary."""
    for index, token in enumerate(ids):
        if token >= info.vocabulary:
            _in_vocabulary(f"{field}[{index}]", token, info)
    return tuple(ids)


def check_scores(sampling: Sampling, prompts: Sequence[int], n: int) -> None:
    """Raise `ApiError` if the request asks for more than `MAX_SCORES` log probabilities of prompt tokens.
    `prompts` holds the length of each prompt.
    """
    if sampling.prompt_logprobs is None:
        return
    scores = sum(prompts) * n * (sampling.prompt_logprobs + 1)
    if scores > MAX_SCORES:
        raise bad_field(
            "prompt_logprobs",
            f"The request asks for {scores} log probabilities of prompt tokens; the maximum is {MAX_SCORES}. "
            "Send fewer or shorter prompts, or lower prompt_logprobs.",
            code="invalid_value",
        )
