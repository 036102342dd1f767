"""Prompts equal those of transformers, and templates get every text in the form that they read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from server.text.tokenizer import TemplateError, Tokenizer
from server.text.tool_formats import HERMES, LLAMA3
from tests.server.text.chats import KINDS, assistant, reloaded, system, user


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, PreTrainedTokenizerFast]:
    made: dict[str, PreTrainedTokenizerFast] = {}
    for kind, folder in folders.items():
        config = json.loads((folder / "tokenizer_config.json").read_text())
        made[kind] = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            bos_token=config["bos_token"],
            eos_token=config["eos_token"]["content"],
            chat_template=config["chat_template"],
        )
    return made


CONVERSATION = st.lists(
    st.text(st.sampled_from("Hello you är 日本😀 \n?.<[]>/|"), max_size=20), min_size=1, max_size=5
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("generate", [True, False])
@settings(max_examples=60, deadline=None)
@given(texts=CONVERSATION)
def test_chats_equal_transformers(
    loaded: dict[str, Tokenizer],
    theirs: dict[str, PreTrainedTokenizerFast],
    kind: str,
    generate: bool,
    texts: list[str],
) -> None:
    # A text that ends or begins as a control token does is kept apart from its neighbour.
    texts = [text.strip("<[]>/|") for text in texts]
    messages = [(user if place % 2 == 0 else assistant)(text) for place, text in enumerate(texts)]
    wanted = theirs[kind].apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=generate, return_dict=False
    )
    assert loaded[kind].chat(messages, add_generation_prompt=generate) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_continuing_equals_transformers(
    loaded: dict[str, Tokenizer], theirs: dict[str, PreTrainedTokenizerFast], kind: str
) -> None:
    for ending in ("Hello th", "Hello ", "H\n"):
        messages = [user("Hi"), assistant(ending)]
        wanted = theirs[kind].apply_chat_template(
            [dict(message) for message in messages], continue_final_message=True, return_dict=False
        )
        ours = loaded[kind].chat(messages, add_generation_prompt=False, continue_final_message=True)
        assert ours == wanted


def test_continuing_and_beginning_at_once_is_refused(loaded: dict[str, Tokenizer]) -> None:
    with pytest.raises(ValueError, match="continue_final_message"):
        loaded["mistral"].chat([user("a")], continue_final_message=True)


def test_the_prompt_begins_with_one_bos(loaded: dict[str, Tokenizer]) -> None:
    for tokenizer in loaded.values():
        assert tokenizer.chat([user("Hello")]).count(tokenizer.bos_id or -1) == 1
        assert tokenizer.encode("Hello")[0] == tokenizer.bos_id
        assert tokenizer.bos_id not in tokenizer.encode("Hello", add_special_tokens=False)


def test_the_templates_own_message_is_the_error(loaded: dict[str, Tokenizer]) -> None:
    with pytest.raises(TemplateError, match=r"^Conversation roles must alternate user/assistant"):
        loaded["mistral"].chat([{"role": "critic", "content": "a"}, user("b")])
    with pytest.raises(TemplateError, match=r"^Only user and assistant roles are supported!$"):
        loaded["mistral"].chat([user("a"), {"role": "critic", "content": "b"}])


def test_a_system_message_goes_before_the_first_user_message_where_the_template_refuses_it(
    loaded: dict[str, Tokenizer],
) -> None:
    merged = loaded["mistral"].chat([system("Be kind."), user("Hi"), assistant("Hello"), user("you")])
    assert merged == loaded["mistral"].chat([user("Be kind.\n\nHi"), assistant("Hello"), user("you")])
    kept = loaded["llama3"].chat([system("Be kind."), user("Hi")])
    assert "system" in loaded["llama3"].decode(kept)


def test_a_system_message_is_not_dropped_in_silence(folder: Path) -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    tokenizer = reloaded(folder, chat_template=template)
    assert tokenizer.decode(tokenizer.chat([system("Be kind."), user("Hi")])) == "Be kind.\n\nHi"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0].content + 1 }}", "messages"),
        ("{{ messages[0].missing.deeper }}", "missing"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|undefined|attribute"),
        ("{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "characters"),
        ("{% for i in range(999999) %}{% endfor %}", "messages|Range"),
    ],
)
def test_what_a_template_must_not_do_is_an_error(folder: Path, template: str, message: str) -> None:
    tokenizer = reloaded(folder, chat_template=template)
    with pytest.raises(TemplateError, match=message):
        tokenizer.chat([user("Hi")])


PART = "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
LIST_ONLY = "{% for m in messages %}{{ m.role }}: " + PART + ". {% endfor %}"
USER_LIST_ONLY = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'user' %}" + PART + "{% else %}{{ m.content }}"
    "{% endif %}. {% endfor %}"
)
EITHER = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}" + PART + "!"
    "{% endif %}. {% endfor %}"
)
INDEXED = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}. {% endfor %}"
STRICT = "{% for m in messages %}{{ m.role }}: {{ '' + m.content[0]['text'] }}. {% endfor %}"


@pytest.mark.parametrize("template", [LIST_ONLY, USER_LIST_ONLY, EITHER, INDEXED, STRICT])
def test_every_text_reaches_a_template_in_the_form_that_it_reads(folder: Path, template: str) -> None:
    tokenizer = reloaded(folder, chat_template=template)
    ids = tokenizer.chat([system("Be kind"), user("Hi"), assistant("Hello"), user("you")])
    assert tokenizer.decode(ids) == "system: Be kind. user: Hi. assistant: Hello. user: you. "
    unfinished = [user("Hi"), assistant("Hello th")]
    ids = tokenizer.chat(unfinished, add_generation_prompt=False, continue_final_message=True)
    assert tokenizer.decode(ids) == "user: Hi. assistant: Hello th"


def test_a_template_that_shows_only_a_users_parts_still_gets_the_system_message(folder: Path) -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}[" + PART + "]{% endif %}{% endfor %}"
    tokenizer = reloaded(folder, chat_template=template)
    assert tokenizer.decode(tokenizer.chat([user("Vem är du?")])) == "[Vem är du?]"
    assert tokenizer.decode(tokenizer.chat([system("Be kind"), user("Hi")])) == "[Be kind\n\nHi]"


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}[INST]",
        "{% for m in messages %}{% if m.role == 'human' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.text }}{% endfor %}",
        "{% for m in messages %}{% for c in m.content %}{{ c.value }}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_drops_the_users_text_is_refused_at_load(folder: Path, template: str) -> None:
    with pytest.raises(ValueError, match=r"chat_template\.jinja"):
        reloaded(folder, chat_template=template)


def test_a_template_that_does_not_compile_is_named_at_load(folder: Path) -> None:
    with pytest.raises(ValueError, match="line 1"):
        reloaded(folder, chat_template="{% for %}")


def test_where_a_chat_template_comes_from(folder: Path) -> None:
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "named {{ bos_token }}{{ messages[0].content }}"},
    ]
    tokenizer = reloaded(folder, chat_template=named)
    assert tokenizer.decode(tokenizer.chat([user("a")]), skip_special_tokens=False) == "named <s> a"
    (folder / "chat_template.jinja").write_text("from its file {{ messages[0].content }}", "utf-8")
    assert reloaded(folder).decode(reloaded(folder).chat([user("a")])) == "from its file a"
    (folder / "chat_template.jinja").unlink()
    for broken in (named[:1], [], [{"name": "default"}], [{"name": "default", "template": None}], ["a"]):
        with pytest.raises(ValueError, match="'default'"):
            reloaded(folder, chat_template=broken)
    with pytest.raises(TemplateError):
        reloaded(folder, chat_template=None).chat([user("a")])


def test_a_template_for_tools_is_used_for_tools(folder: Path) -> None:
    for_tools = "{{ tools | tojson if tools }}<tool_call>{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = {"name": "default", "template": "plain {{ messages[0].content }}"}
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}
    tokenizer = reloaded(folder, chat_template=[plain, {"name": "tool_use", "template": for_tools}])
    assert tokenizer.takes_tools
    assert tokenizer.tool_format is HERMES
    assert tokenizer.decode(tokenizer.chat([user("a")])) == "plain a"
    assert '"name": "f"' in tokenizer.decode(tokenizer.chat([user("a")], tools=[tool]))
    broken = reloaded(folder, chat_template=[plain, {"name": "tool_use", "template": "{% for %}"}])
    assert not broken.takes_tools
    assert "f()" in broken.decode(broken.chat([{"role": "user", "content": "a"}], tools=[tool]))


def test_a_tool_parser_in_place_of_the_templates(folder: Path) -> None:
    reloaded(folder)
    assert Tokenizer.load(folder).tool_format is None
    assert Tokenizer.load(folder, tool_parser="llama3_json").tool_format is LLAMA3
    with pytest.raises(ValueError, match=r"tool_parser 'mistral'.*\[TOOL_CALLS\]"):
        Tokenizer.load(folder, tool_parser="mistral")


def test_a_template_may_mark_what_was_generated(folder: Path) -> None:
    template = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    tokenizer = reloaded(folder, chat_template=template)
    assert tokenizer.decode(tokenizer.chat([user("Hello"), assistant(" you")])) == "Hello you"
