"""Parses and checks the prompts of completions and embeddings, then tokenizes them one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from server.api.fields.generation import MAX_PROMPTS
from server.api.parsing.prompt import CompletionPrompt, given_prompts
from server.serving.one_thread import Aside
from server.serving.service import BaseService


async def draft_prompts(
    prompt: object, service: BaseService, aside: Aside, field: str = "prompt", most: int = MAX_PROMPTS
) -> list[CompletionPrompt]:
    """Parse prompts in OpenAI's four forms (a text, a list of texts, token ids, a list of token-id lists)
    without tokenizing them.

    Raises `ApiError` with the path of an invalid prompt, such as `prompt[1]`, or if there are no prompts or
    more than `most`.
    """
    given = await aside(partial(given_prompts, prompt, service.runtime.info, field, most))
    prompts: list[CompletionPrompt] = []
    for _, item in given:
        if isinstance(item, str):
            prompts.append(CompletionPrompt(item, ()))
        else:
            prompts.append(CompletionPrompt(await service.generation.decode(item), item))
            await asyncio.sleep(0)
    return prompts


async def tokenise_prompts(
    prompts: Sequence[CompletionPrompt], service: BaseService, field: str = "prompt", *, special: bool = True
) -> list[CompletionPrompt]:
    """Tokenize the prompts that are not token ids already. `special`: add special tokens, such as the one at
    the beginning.

    Raises `ApiError` for a prompt that exceeds the context.
    """
    done: list[CompletionPrompt] = []
    for index, prompt in enumerate(prompts):
        tokens = prompt.tokens
        if not tokens:
            path = f"{field}[{index}]" if len(prompts) > 1 else field
            tokens = await service.generation.encode(prompt.text, path, special)
        done.append(CompletionPrompt(prompt.text, tokens))
        # Many short texts are as much work as a long one, for which no stream should wait.
        await asyncio.sleep(0)
    return done
