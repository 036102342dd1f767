"""Parses prompts that a client sent as text or as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

from server.api.parsing.sampling import check_ids
from server.errors import bad_field, context_exceeded
from server.metrics.engine_state import EngineInfo

GivenPrompt: TypeAlias = str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CompletionPrompt:
    """A prompt as text and as token ids."""

    text: str
    tokens: tuple[int, ...]
    """Token ids of the prompt; empty until the text is tokenized."""


def given_prompts(prompt: object, info: EngineInfo, field: str, most: int) -> list[tuple[str, GivenPrompt]]:
    """Return the prompts in OpenAI's four forms (a text, a list of texts, token ids, a list of token-id
    lists), each with its path, such as `prompt[1]`.

    Raises `ApiError` with the path of an invalid prompt, or if there are no prompts or more than `most`.
    """
    several = cast("list[object]", prompt) if isinstance(prompt, list) else [prompt]
    if not isinstance(prompt, list) or (several and _is_id(several[0])):
        return [(field, _given(prompt, field, info))]
    if not 0 < len(several) <= most:
        raise bad_field(
            field, f"{field} must hold 1 to {most} texts or arrays of token ids.", code="invalid_value"
        )
    paths = [f"{field}[{index}]" for index in range(len(several))]
    return [(path, _given(item, path, info)) for path, item in zip(paths, several, strict=True)]


def _given(item: object, path: str, info: EngineInfo) -> GivenPrompt:
    match item:
        case str() if item:
            return item
        case list() if len(cast("list[object]", item)) > info.context:
            raise context_exceeded(path, info.context, len(cast("list[object]", item)))
        case list() if item and all(_is_id(token) for token in cast("list[object]", item)):
            return check_ids(cast("list[int]", item), path, info)
        case _:
            raise bad_field(
                path,
                f"{path} must be a text or an array of token ids that is not empty.",
                code="invalid_type",
            )


def _is_id(item: object) -> bool:
    return type(item) is int and item >= 0


def count_places(value: Mapping[str, object], prompts: str) -> int:
    """Return the number of queue places that a request needs: `n` for each prompt in the field `prompts`. The
    body is not validated yet.
    """
    n, listed = value.get("n"), value.get(prompts)
    choices = n if type(n) is int and n > 0 else 1
    if not isinstance(listed, list) or not listed:
        return choices
    several = cast("list[object]", listed)
    return choices * (1 if type(several[0]) is int else len(several))
