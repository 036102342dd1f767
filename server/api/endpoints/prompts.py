"""The prompts of completions and embeddings: read, checked, and tokenised one after another."""

from __future__ import annotations

import asyncio
from functools import partial

from server.api.fields.generation import MAX_PROMPTS
from server.api.parsing.prompt import CompletionPrompt, given_prompts
from server.serving.one_thread import Aside
from server.serving.service import BaseService


async def read_prompts(
    prompt: object, service: BaseService, aside: Aside, field: str = "prompt", most: int = MAX_PROMPTS
) -> list[CompletionPrompt]:
    """The prompts of OpenAI's four shapes: text, texts, token ids, lists of token ids.

    Raises `ApiError` with the path of a bad one in `field`, and if there are none or more than `most`.
    """
    given = await aside(partial(given_prompts, prompt, service.runtime.info, field, most))
    prompts: list[CompletionPrompt] = []
    for path, item in given:
        if isinstance(item, str):
            prompts.append(CompletionPrompt(item, await service.generation.encode(item, path)))
        else:
            prompts.append(CompletionPrompt(await service.generation.decode(item), item))
        # Many short texts are as much work as a long one, for which no stream should wait.
        await asyncio.sleep(0)
    return prompts
