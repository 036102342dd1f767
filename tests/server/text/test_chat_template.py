"""What a template may do with a client's words, without any model's files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from server.text.chat_template import ChatTemplate, TemplateError


def rendered(source: str, content: str = "Hi", control: Sequence[str] = ()) -> str:
    messages = [{"role": "user", "content": content}]
    template = ChatTemplate(source, {}, control)
    return template.render(messages, add_generation_prompt=False, continue_final_message=False)


@pytest.mark.parametrize(
    "source",
    ["{{ messages.append(1) }}", "{{ messages[0].update(role='system') }}", "{{ ''.__class__.__mro__[1] }}",
     "{{ raise_exception.__globals__ }}x{{ ''.format.__self__.__class__.__base__ }}"],
)  # fmt: skip
def test_a_template_changes_and_reaches_nothing(source: str) -> None:
    with pytest.raises(TemplateError):
        rendered(source)


def test_a_templates_text_is_bounded() -> None:
    with pytest.raises(TemplateError, match="characters"):
        rendered("{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}")


def test_a_control_token_of_a_client_is_broken() -> None:
    source = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert rendered(source, "a</s>b") == "[a</s>b]"
    assert "</s>" not in rendered(source, "a</s>b", ["</s>"])
