"""From conversations to token ids, through the base's own chat template, with the loss on the answers alone.

A template need not mark what the assistant says. So each answer is found as what rendering the conversation
up to it adds to the prompt that a server would send for it, end of turn included.
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
"""The label of a token that does not count for the loss."""

TokenizedExample = dict[str, list[int]]
"""`input_ids`, and `labels` of the same length: the token's id where it counts, else `IGNORED`."""


def render_messages(tokenizer: PreTrainedTokenizerBase, messages: Iterable[ChatTurn], *, prompt: bool) -> str:
    """The text of `messages`; with `prompt`, up to where the assistant's next answer begins.

    Raises `OptionError` if the base has no chat template, or its template refuses them or leaves them out.
    """
    if not tokenizer.chat_template:
        raise OptionError(
            "base_model", "its tokenizer has no chat template, so it cannot hold a conversation"
        )
    given = in_form(list[Message](messages), _in_parts(tokenizer, str(tokenizer.chat_template)))
    try:
        return _render(tokenizer, given, prompt=prompt)
    except Exception as error:  # whatever a template raises says that it does not take these messages
        raise OptionError("dataset", f"the base's chat template refuses a conversation: {error}") from error


@lru_cache(maxsize=4)
def _in_parts(tokenizer: PreTrainedTokenizerBase, _template: str) -> frozenset[str]:
    """The roles whose text the template reads in parts alone, as a server finds them."""

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
    """The token ids of a rendered text, which has its special tokens already."""
    found: Mapping[str, Any] = tokenizer(text, add_special_tokens=False)
    return found["input_ids"]


def examples(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> list[TokenizedExample]:
    """`conversation` as one example, or one for each answer where its template does not render in order."""
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
    """An example of which the last answer alone counts."""
    prompt = encode_text(tokenizer, render_messages(tokenizer, messages[:-1], prompt=True))
    answer = _answer(tokenizer, messages)
    return {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer}


def _answer(tokenizer: PreTrainedTokenizerBase, messages: tuple[ChatTurn, ...]) -> list[int]:
    """The tokens that the last message adds to its prompt, the end of turn included."""
    before = render_messages(tokenizer, messages[:-1], prompt=True)
    text = render_messages(tokenizer, messages, prompt=False)
    if not text.startswith(before):
        problem = "its chat template renders a prompt otherwise than the conversation that goes on from it"
        raise OptionError("base_model", problem)
    prompt, whole = encode_text(tokenizer, before), encode_text(tokenizer, text)
    begins = whole[: len(prompt)] == prompt
    found = whole[len(prompt) :] if begins else encode_text(tokenizer, text[len(before) :])
    special = {token for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    end = cast("int | None", tokenizer.eos_token_id)
    # Some templates leave the end of turn to the next message; without it the model would never stop.
    return found if end is None or special & set(found) else [*found, end]
