"""Generate answers with a transformers model, in batches. Decoding is greedy unless an `AnswerSampling` is
given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from adapters.training.finetune.base import answer_ends
from adapters.training.finetune.examples import encode_text, render_messages
from adapters.training.loop.packing import Encoder, Turn


def answers(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Turn]],
    *,
    longest: int = 96,
    rows: int = 64,
) -> list[str]:
    """Return the greedy answer to the last question of each conversation. An answer that the conversation
    already holds to that question is ignored.

    An answer that does not end within `longest` tokens ends in `…`.
    """
    encoder = Encoder(tokenizer)
    prompts: list[list[int]] = []
    for conversation in conversations:
        whole = encoder.document(conversation)
        last = max(n for n, answer in enumerate(whole.answer) if not answer)
        prompts.append(list(whole.ids[: last + 1]))
    found: list[str] = []
    for row in complete(model, prompts, {encoder.end}, encoder.end, longest=longest, rows=rows):
        text = tokenizer.decode(list(row.ids))
        found.append(text if row.ended else text + "…")
    return found


@dataclass(frozen=True, slots=True)
class AnswerSampling:
    """Parameters for sampling the next token."""

    temperature: float
    """Sampling temperature, above 0."""
    top_p: float = 1.0
    seed: int = 0
    """Random seed. The same seed, prompts and batches always give the same answers."""


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    longest: int = 96,
    rows: int = 32,
) -> list[str]:
    """Return the greedy answer to each question, asked with the chat template of the base model. An answer
    that does not end within `longest` tokens ends in `…`.
    """
    found = answer_chats(model, tokenizer, questions, longest=longest, rows=rows)
    return [text if ended else text + "…" for text, ended in found]


def answer_chats(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    longest: int,
    rows: int,
    sampling: AnswerSampling | None = None,
) -> list[tuple[str, bool]]:
    """Return the answer to each question, asked with the chat template of the base model, and whether the
    model ended the answer itself.
    """
    prompts = [
        encode_text(
            tokenizer, render_messages(tokenizer, [{"role": "user", "content": question}], prompt=True)
        )
        for question in questions
    ]
    own = model.generation_config.eos_token_id
    given = cast("list[int | None]", own if isinstance(own, list) else [own])
    ends = {*(end for end in given if end is not None), *answer_ends(tokenizer)}
    pad = cast("int", tokenizer.pad_token_id)
    found: list[tuple[str, bool]] = []
    for row in complete(model, prompts, ends, pad, longest=longest, rows=rows, sampling=sampling):
        text = cast("str", tokenizer.decode(list(row.ids), skip_special_tokens=True)).strip()
        found.append((text, row.ended))
    return found


@dataclass(frozen=True, slots=True)
class Continuation:
    """The tokens that a model generated after a prompt."""

    ids: tuple[int, ...]
    ended: bool
    """True if the model ended the answer itself; False if the token limit cut it off. `ids` leaves out the
    token that ended the answer.
    """


def complete(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    pad: int,
    *,
    longest: int,
    rows: int,
    sampling: AnswerSampling | None = None,
) -> list[Continuation]:
    """Generate tokens after each prompt until a token in `ends` comes, or `longest` tokens are generated. Run
    `rows` prompts at a time.
    """
    how: dict[str, Any] = {"do_sample": False}
    if sampling is not None:
        torch.manual_seed(sampling.seed)
        how = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    found = [Continuation((), False)] * len(prompts)
    device = next(model.parameters()).device
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        width = max(len(prompts[n]) for n in chosen)
        ids = torch.tensor([[pad] * (width - len(prompts[n])) + list(prompts[n]) for n in chosen])
        mask = torch.tensor([[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in chosen])
        with torch.inference_mode():
            made = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=longest,
                **how,
                eos_token_id=sorted(ends),
                pad_token_id=pad,
            )
        for n, row in zip(chosen, made[:, width:].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in ends), None)
            found[n] = Continuation(tuple(row[:end]), end is not None)
    return found
