"""Turn conversations into token ids with the base model's chat template. Only the tokens of answers count for
the loss.

Not every template marks the assistant's text. So each answer is found by comparing two renderings: the
conversation up to the answer's end, and the prompt that a server would send for the answer. The difference is
the answer with its end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from adapters.datasets.content_forms import Message, in_form, probe_roles
from adapters.training.finetune.conversations import ChatTurn, Conversation
from adapters.training.loop.options import OptionError

IGNORED = -100
"""Label of a token that does not count for the loss."""

TokenizedExample = dict[str, list[int]]
"""One tokenized example: `input_ids`, and `labels` of the same length. The label of a token is its id if the
token counts for the loss, else `IGNORED`.
"""


def render_messages(tokenizer: PreTrainedTokenizerBase, messages: Iterable[ChatTurn], *, prompt: bool) -> str:
    """Render `messages` as text with the base model's chat template. With `prompt`, add the beginning of the
    assistant's next message.

    Raises `OptionError` if the base model has no chat template, or if the template raises an error or leaves
    out user messages.
    """
    if not tokenizer.chat_template:
        raise OptionError(
            "base_model",
            "the tokenizer has no chat template, which conversations need; use another base model",
        )
    given = in_form(list[Message](messages), _in_parts(tokenizer, str(tokenizer.chat_template)))
    try:
        return _render(tokenizer, given, prompt=prompt)
    except Exception as error:  # whatever a template raises says that it does not take these messages
        raise OptionError(
            "dataset",
            f"the base model's chat template cannot render one of the conversations; change or remove that "
            f"conversation: {error}",
        ) from error


@lru_cache(maxsize=4)
def _in_parts(tokenizer: PreTrainedTokenizerBase, _template: str) -> frozenset[str]:
    """Return the roles whose content the chat template reads only as a list of parts. The server uses the
    same check.
    """

    def render(messages: list[Message]) -> str | None:
        try:
            return _render(tokenizer, messages, prompt=True)
        except Exception:  # as above
            return None

    try:
        return probe_roles(render)[0]
    except ValueError as error:
        raise OptionError("base_model", str(error)) from error


def _render(tokenizer: PreTrainedTokenizerBase, messages: Iterable[Message], *, prompt: bool) -> str:
    plain = [dict(message) for message in messages]
    return cast("str", tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text that was rendered by a chat template and already includes the special
    tokens.
    """
    found: Mapping[str, Any] = tokenizer(text, add_special_tokens=False)
    return found["input_ids"]


def examples(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[TokenizedExample]:
    """Return `conversation` as one tokenized example. If the template renders a message differently once
    later messages follow, return one example for each answer.
    """
    messages = conversation.messages
    ends = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    ids: list[int] = []
    labels: list[int] = []
    for end in ends:
        prompt = encode_text(tokenizer, render_messages(tokenizer, messages[:end], prompt=True))
        if prompt[: len(ids)] != ids:
            return [_single(tokenizer, messages[: end + 1]) for end in ends]
        answer = _answer(tokenizer, messages[: end + 1])
        labels += [IGNORED] * (len(prompt) - len(ids)) + answer
        ids = prompt + answer
    return [{"input_ids": ids, "labels": labels}]


def _single(tokenizer: PreTrainedTokenizerBase, messages: tuple[ChatTurn, ...]) -> TokenizedExample:
    """Return a tokenized example in which only the last answer counts for the loss."""
    prompt = encode_text(tokenizer, render_messages(tokenizer, messages[:-1], prompt=True))
    answer = _answer(tokenizer, messages)
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def _answer(tokenizer: PreTrainedTokenizerBase, messages: tuple[ChatTurn, ...]) -> list[int]:
    """Return the token ids of the last message, an answer, including the end of its turn."""
    before = render_messages(tokenizer, messages[:-1], prompt=True)
    text = render_messages(tokenizer, messages, prompt=False)
    if not text.startswith(before):
        raise OptionError(
            "base_model",
            "the chat template renders a prompt differently if an answer follows; correct the template",
        )
    prompt, whole = encode_text(tokenizer, before), encode_text(tokenizer, text)
    begins = whole[: len(prompt)] == prompt
    found = whole[len(prompt) :] if begins else encode_text(tokenizer, text[len(before) :])
    special = {token for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    end = cast("int | None", tokenizer.eos_token_id)
    # Some templates write the end of turn with the next message. Without it, the model would never stop.
    return found if end is None or special & set(found) else [*found, end]
