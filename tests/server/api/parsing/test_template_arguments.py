"""Which names of a chat template a request may set."""

from __future__ import annotations

from typing import Any

import pytest

from server.api.fields.unknown import IGNORED_HEADER, UnknownFields
from server.api.parsing.template_arguments import template_arguments
from server.errors import ApiError
from server.text.chat_template import OURS, ChatTemplate

QWEN = (
    "{%- if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{%- set ns = namespace(last=0) %}{{ bos_token }}"
    "{%- for message in messages %}{{ message.role }}:{{ message.content }}\n{% endfor %}"
    "{%- if add_generation_prompt %}assistant:"
    "{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
    "{{ greeting }}{% if tools %}{{ tools | tojson }}{% endif %}{% if custom_tools %}{% endif %}"
)
READS = frozenset({"enable_thinking", "greeting"})
USER: list[dict[str, Any]] = [{"role": "user", "content": "Hej"}]


def template() -> ChatTemplate:
    return ChatTemplate(QWEN, {"bos_token": "<s>"}, ["<s>"])


def render(**arguments: Any) -> str:
    return template().render(
        USER, add_generation_prompt=True, continue_final_message=False, arguments=arguments
    )


def test_the_names_are_those_that_the_template_reads_and_the_server_does_not_set() -> None:
    assert template().arguments == READS


def test_a_value_reaches_the_template() -> None:
    assert render(enable_thinking=False) == "<s>user:Hej\nassistant:<think></think>"
    assert render() == render(enable_thinking=True) == "<s>user:Hej\nassistant:"


def test_a_value_brings_no_control_token_and_no_other_name() -> None:
    assert render(greeting="<s>").count("<s>") == 1
    assert render(messages=[], bos_token="x", tools=[1], raise_exception=1) == render()


@pytest.mark.parametrize("name", sorted(OURS))
def test_names_of_the_server_are_refused(name: str) -> None:
    with pytest.raises(ApiError) as error:
        template_arguments({name: False}, READS | {name}, UnknownFields())
    assert error.value.reply.param == f"chat_template_kwargs.{name}"


def test_other_names_are_treated_as_unknown_fields() -> None:
    receipt: dict[str, str] = {}
    assert template_arguments({"custom": 1, "greeting": 2}, READS, UnknownFields(receipt)) == {"greeting": 2}
    assert receipt == {IGNORED_HEADER: "chat_template_kwargs.custom"}
    for unknown, name in ((UnknownFields(), "enable_thinkin"), (UnknownFields(strict=True), "custom")):
        with pytest.raises(ApiError):
            template_arguments({name: 1}, READS, unknown)


def test_a_value_is_bounded_in_depth() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(ApiError):
        template_arguments({"greeting": deep}, READS, UnknownFields())


@pytest.mark.parametrize(
    ("readable", "effort", "found"),
    [
        (frozenset[str](), "low", {}),
        (frozenset[str](), "none", {}),
        (READS, "low", {}),
        (READS, "none", {"enable_thinking": False}),
        (frozenset({"reasoning_effort"}), "low", {"reasoning_effort": "low"}),
        (frozenset({"thinking"}), "none", {"thinking": False}),
    ],
)
def test_an_effort_is_for_a_base_that_reasons(
    readable: frozenset[str], effort: str, found: dict[str, Any]
) -> None:
    assert template_arguments(None, readable, UnknownFields(), effort=effort) == found


def test_what_is_set_by_name_goes_before_the_effort() -> None:
    given = {"enable_thinking": True}
    assert template_arguments(given, READS, UnknownFields(), effort="none") == given


def test_a_budget_is_refused_where_it_would_change_the_answer() -> None:
    assert template_arguments(None, frozenset(), UnknownFields(), budget=5) == {}
    with pytest.raises(ApiError, match="thinking_token_budget"):
        template_arguments(None, READS, UnknownFields(), budget=5)
