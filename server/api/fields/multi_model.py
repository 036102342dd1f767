"""Defines every field of `POST /api/oqt/multi-model-query`, and whether it is honoured, ignored or refused.

docs/api.md shows the same table; a test checks that both are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from routing.selection import MAX_LENGTH
from server.api.fields.generation import MAX_MESSAGES, SamplingFields, known
from server.api.fields.refusals import HINTS, REFUSED, FieldKind, Refusal

MAX_VOICES = 8

VoiceName = Annotated[str, Meta(min_length=1, max_length=MAX_LENGTH)]


class MultiModelFields(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The fields of `POST /api/oqt/multi-model-query`."""

    question: Annotated[str, Meta(min_length=1)] | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    models: Annotated[list[VoiceName], Meta(min_length=1, max_length=MAX_VOICES)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    agreement_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None


LOCAL_FIELDS = ("top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos")
"""Sampling fields that OpenAI's API does not have. They are refused if the request also names an external
service.
"""
EXTERNAL_FIELDS = (
    "max_tokens", "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"
)  # fmt: skip
"""Sampling fields that OpenAI's API has; they are sent to external services too."""

_ONE_BASE = "token ids are specific to one base, and several bases may answer"
_TEMPLATES = "several bases may answer, each with its own chat template"
_FREE = "this endpoint compares answers in free text, not tool calls or structured output"

MULTI_MODEL_REFUSED: Mapping[str, Refusal] = {
    **{name: refusal for name, refusal in REFUSED.items() if name not in known(MultiModelFields)},
    "model": Refusal("send models, a list of names, instead"),
    "lora_path": Refusal("send models, a list of names, instead"),
    "adapter_id": Refusal("send models, a list of names, instead"),
    "prompt": Refusal("send question instead"),
    "text": Refusal("send question instead"),
    "max_completion_tokens": Refusal("send max_tokens instead"),
    "n": Refusal("each model gives exactly one answer", (1,)),
    "stream_options": Refusal("the token counts of each model are always included", ({},)),
    "logit_bias": Refusal(_ONE_BASE, ({},)),
    "stop_token_ids": Refusal(_ONE_BASE, ([],)),
    "return_token_ids": Refusal(_ONE_BASE, (False,)),
    "return_tokens_as_token_ids": Refusal(_ONE_BASE, (False,)),
    "chat_template_kwargs": Refusal(_TEMPLATES, ({},)),
    "reasoning_effort": Refusal(_TEMPLATES, ("none",)),
    "thinking_token_budget": Refusal(_TEMPLATES),
    "logprobs": Refusal("log probabilities of different bases are not comparable", (False,)),
    "top_logprobs": Refusal("log probabilities of different bases are not comparable", (0,)),
    "prompt_logprobs": Refusal("log probabilities of different bases are not comparable"),
    "tools": Refusal(_FREE, ([],)),
    "tool_choice": Refusal(_FREE, ("none", "auto")),
    "parallel_tool_calls": Refusal(_FREE, (True,)),
    "response_format": Refusal(_FREE, ({"type": "text"},)),
    "structured_outputs": Refusal(_FREE),
    "guided_json": Refusal(_FREE),
    "guided_regex": Refusal(_FREE),
    "guided_choice": Refusal(_FREE),
    "guided_grammar": Refusal(_FREE),
    "echo": Refusal("the endpoint never repeats a prompt before an answer", (False,)),
    "add_generation_prompt": Refusal("each model begins a new answer", (True,)),
    "continue_final_message": Refusal("each model begins a new answer", (False,)),
}
"""Maps each refused field, which would change the answers but is not supported, to the reason. Includes the
fields that chat completions refuse.
"""


def multi_model_table() -> dict[str, FieldKind]:
    """Return every field of `POST /api/oqt/multi-model-query`, with how it is handled: honoured, ignored or
    refused.
    """
    honoured: dict[str, FieldKind] = dict.fromkeys(known(MultiModelFields), "honoured")
    ignored: dict[str, FieldKind] = dict.fromkeys(HINTS, "ignored")
    refused: dict[str, FieldKind] = dict.fromkeys(MULTI_MODEL_REFUSED, "refused")
    return honoured | ignored | refused
