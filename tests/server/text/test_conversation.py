"""Conversations that templates refuse are merged, and those they take stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text import conversation
from server.text.chat_template import ChatTemplate, TemplateError
from server.text.conversation import kinds_of, merged, one_call_each
from server.text.tool_formats import FORMATS, HERMES, JSON, LLAMA3, MISTRAL
from tests.server.small_tokenizers import LLAMA3_TEMPLATE, MISTRAL_TEMPLATE
from tests.server.tool_bases import KINDS

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SYSTEM_FIRST = (
    "{% if messages[0].role == 'system' %}{{ 'S:' + messages[0].content + '\\n' }}"
    "{% set messages = messages[1:] %}{% endif %}" + MISTRAL_TEMPLATE
)
LIST_ONLY = (
    "{{ bos_token }}{% for m in messages %}{% if m['role']=='user' %}[INST]{% for c in m['content'] %}"
    "{% if c['type']=='text' %}{{ c['text'] }}{% endif %}{% endfor %}[/INST]{% endif %}{% endfor %}"
)


def turns(text: str) -> list[dict[str, Any]]:
    """`s:a u:b` → a system message `a` and a user's `b`."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    pairs = (item.split(":") for item in text.split())
    return [{"role": roles[role], "content": content} for role, content in pairs]


def render(source: str, text: str, *, continued: bool = False) -> str:
    template = ChatTemplate(source, SPECIAL, ["</s>", "[INST]"])
    return template.render(turns(text), add_generation_prompt=not continued, continue_final_message=continued)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("s:a s:b u:c", "[INST] a\n\nb\n\nc [/INST]"),
        ("u:a u:b", "[INST] a\n\nb [/INST]"),
        ("a:a u:b", "[INST]  [/INST] a</s>[INST] b [/INST]"),
        ("s:x a:a u:b", "[INST] x\n\n [/INST] a</s>[INST] b [/INST]"),
        ("s:x", "[INST] x\n\n [/INST]"),
        ("s:x s:y", "[INST] x\n\ny\n\n [/INST]"),
        ("u:a a:b s:x u:c", "[INST] x\n\na [/INST] b</s>[INST] c [/INST]"),
        ("u:a s:x u:c", "[INST] x\n\na\n\nc [/INST]"),
        ("u:a s:x", "[INST] x\n\na [/INST]"),
        ("u:a a:b a:c u:d", "[INST] a [/INST] b\n\nc</s>[INST] d [/INST]"),
        ("u:a a:b u:c", "[INST] a [/INST] b</s>[INST] c [/INST]"),
    ],
)
def test_as_mistrals_own_tokenizer_merges(said: str, written: str) -> None:
    assert render(MISTRAL_TEMPLATE, said) == "<s>" + written


def test_a_system_message_of_its_own_stays_one() -> None:
    assert render(SYSTEM_FIRST, "s:a s:b u:c u:d") == "S:a\n\nb\n<s>[INST] c\n\nd [/INST]"
    assert render(SYSTEM_FIRST, "s:a u:b") == "S:a\n<s>[INST] b [/INST]"


@pytest.mark.parametrize(
    "said", ["s:a s:b u:c", "u:a u:b", "a:a u:b", "s:a", "u:a a:b s:c u:d", "u:a a:b a:c"]
)
def test_what_a_template_takes_is_not_changed(said: str) -> None:
    text = render(LLAMA3_TEMPLATE, said)
    for turn in turns(said):
        assert f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n{turn['content']}<|eot_id|>" in text
    assert text.count("<|eot_id|>") == len(turns(said))


def test_what_a_template_leaves_out_counts_as_refused() -> None:
    assert render(LIST_ONLY, "s:a u:b u:c") == "<s>[INST]a\n\nb[/INST][INST]c[/INST]"
    assert render(LIST_ONLY, "u:a a:x s:b u:c") == "<s>[INST]b\n\na[/INST][INST]c[/INST]"
    assert render(LIST_ONLY, "s:a") == "<s>[INST]a\n\n[/INST]"


def test_what_merging_does_not_help_is_an_error() -> None:
    with pytest.raises(TemplateError, match="alternate"):
        ChatTemplate(MISTRAL_TEMPLATE, SPECIAL, []).render(
            [{"role": "critic", "content": "a"}, *turns("u:a u:b")],
            add_generation_prompt=True,
            continue_final_message=False,
        )


def test_a_merged_last_message_is_continued() -> None:
    assert render(MISTRAL_TEMPLATE, "u:a u:b a:c a:d", continued=True) == "<s>[INST] a\n\nb [/INST] c\n\nd"


@given(st.lists(st.sampled_from("sua"), min_size=1, max_size=7))
def test_any_conversation_is_taken(roles: list[str]) -> None:
    said = " ".join(f"{role}:m{place}m" for place, role in enumerate(roles))
    text = render(MISTRAL_TEMPLATE, said)
    assert all(turn["content"] in text for turn in turns(said))
    messages = turns(said)
    tidy = merged(messages, conversation.ALL_KINDS)
    assert not kinds_of(tidy)
    assert merged(tidy, conversation.ALL_KINDS) == tidy
    assert merged(messages, frozenset()) == messages


def called(*names: str) -> dict[str, Any]:
    calls = [{"id": f"{name}bcdefgh1", "type": "function", "function": {"name": name, "arguments": {"a": 1}}}
             for name in names]  # fmt: skip
    return {"role": "assistant", "content": "", "tool_calls": calls}


def result(name: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "tool_call_id": f"{name}bcdefgh1", "content": f"from {name}"}


ROUND = [*turns("s:x u:q"), called("f", "g"), result("g"), result("f"), *turns("u:r")]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]


def with_tools(source: str, parser: str | None = None) -> str:
    template = ChatTemplate(source, SPECIAL, ["</s>", "[INST]"], parser)
    return template.render(ROUND, add_generation_prompt=False, continue_final_message=False, tools=TOOLS)


def test_tools_as_text_where_a_template_knows_none() -> None:
    text = with_tools(MISTRAL_TEMPLATE)
    assert text.startswith("<s>[INST] x\n\nYou can call these tools:\nf(): d\n")
    assert (
        '[/INST] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"a": 1}}]</s>'
        "[INST] Result of g: from g\nResult of f: from f\n\nr [/INST]"
    ) in text
    hermes = with_tools(MISTRAL_TEMPLATE, "hermes")
    assert '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>' in hermes


def test_one_call_at_a_time_for_a_template_that_takes_no_more() -> None:
    text = with_tools(KINDS["llama3"].template)
    order = [text.index(part) for part in ('{"name": "f"', "from f", '{"name": "g"', "from g")]
    assert order == sorted(order)
    once = [*turns("u:q"), called("f"), result("f")]
    assert one_call_each(once) == once


def test_results_that_a_template_leaves_out_are_written_as_text() -> None:
    source = (
        "{{ tools | tojson if tools }}{% for m in messages if m.role != 'tool' %}{{ m.content }};{% endfor %}"
    )
    text = with_tools(source)
    assert '"name": "f", "description"' in text
    assert "Result of g: from g\nResult of f: from f;" in text


@pytest.mark.parametrize(
    ("kind", "form"),
    [("array", MISTRAL), ("named", MISTRAL), ("hermes", HERMES), ("llama3", LLAMA3), ("plain", None)],
)
def test_the_template_shows_the_format(kind: str, form: object) -> None:
    source = KINDS[kind].template
    assert ChatTemplate(source, SPECIAL, []).tool_format is form
    for name, other in FORMATS.items():
        assert ChatTemplate(source, SPECIAL, [], name).tool_format is other


@pytest.mark.parametrize("mark", ["<function=", "<arg_key>"])
def test_calls_in_xml_are_in_no_format_that_is_read(mark: str) -> None:
    source = (
        "{{ tools | tojson if tools }}<tool_call>"
        + mark
        + "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    template = ChatTemplate(source, SPECIAL, [])
    assert template.takes_tools
    assert template.tool_format is None
    assert JSON.write([called("f")["tool_calls"][0]]) == '[{"name": "f", "arguments": {"a": 1}}]'
