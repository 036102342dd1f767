"""Greedy answers from a transformers model, many questions at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from adapters.training.packing import Encoder, Turn


def answers(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Turn]],
    *,
    longest: int = 96,
    rows: int = 64,
) -> list[str]:
    """The greedy answer to the last question of each conversation (its own answer is ignored).

    An answer that does not end within `longest` tokens comes back with a trailing `…`.
    """
    encoder = Encoder(tokenizer)
    prompts: list[list[int]] = []
    for conversation in conversations:
        whole = encoder.document(conversation)
        last = max(n for n, answer in enumerate(whole.answer) if not answer)
        prompts.append(list(whole.ids[: last + 1]))
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    found = [""] * len(prompts)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        width = max(len(prompts[n]) for n in chosen)
        ids = torch.tensor([[encoder.end] * (width - len(prompts[n])) + prompts[n] for n in chosen])
        mask = torch.tensor([[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in chosen])
        with torch.inference_mode():
            made = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,
                pad_token_id=encoder.end,
            )
        for n, row in zip(chosen, made[:, width:].tolist(), strict=True):
            ended = encoder.end in row
            text = tokenizer.decode(row[: row.index(encoder.end)] if ended else row)
            found[n] = text if ended else text + "…"
    return found
