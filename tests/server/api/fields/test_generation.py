"""Which fields are taken, which are refused, and that an error names them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParameters
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParameters

from server.api.fields.decode import to_fields, to_generation
from server.api.fields.generation import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    LegacyFields,
    TokenizeFields,
    describe_fields,
    known,
)
from server.api.fields.refusals import HINTS, REFUSED
from server.api.fields.tables import CHAT, COMPLETIONS, describe_generation
from server.api.parsing.messages import parse_messages, user_turns
from server.api.parsing.sampling import chat_sampling, check_ids, completion_sampling
from server.errors import ApiError, ErrorReply
from server.metrics.engine_state import EngineInfo
from tests.server.documented import described, documented_rows, rendered_rows

INFO = EngineInfo(
    name="embedded", base_digest="sha256:0", context=100, vocabulary=50, blends=True, max_adapters=4
)
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


def schema_format(name: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": {"type": "object"}}}


def chat(**fields: Any) -> ChatFields:
    return to_generation(HELLO | fields, ChatFields)


def refused(**fields: Any) -> ErrorReply:
    with pytest.raises(ApiError) as error:
        check(HELLO | fields)
    return error.value.reply


def check(value: dict[str, Any]) -> None:
    body = to_generation(value, ChatFields)
    chat_sampling(body, INFO)
    parse_messages(body.messages)


@pytest.mark.parametrize("heading", sorted(described()))
def test_the_documented_table_is_the_code(heading: str) -> None:
    assert documented_rows(heading) == rendered_rows(described()[heading])


def test_a_note_names_the_only_endpoint_that_honours_a_field() -> None:
    chat, completions = CHAT.describe(), COMPLETIONS.describe()
    assert set(chat) == set(completions)
    for name, row in describe_generation().items():
        kinds = (chat[name].kind, completions[name].kind)
        if row.kind == "honoured" and kinds != ("honoured", "honoured"):
            assert row.note.startswith("chat" if kinds[0] == "honoured" else "completions"), name


def test_every_field_of_the_official_client_has_its_place() -> None:
    for parameters in (ChatParameters, CompletionParameters):
        assert not set(parameters.__annotations__) - set(describe_fields())


def test_no_field_is_of_two_kinds() -> None:
    honoured = known(ChatFields) | known(CompletionFields)
    assert not HINTS & set(REFUSED)
    assert not HINTS & honoured
    assert not honoured & set(REFUSED)


@pytest.mark.parametrize("name", sorted(HINTS))
def test_hints_are_taken(name: str) -> None:
    assert chat(**{name: {"any": "thing"}}) == chat()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    reply = refused(**{name: {"some": "thing"}})
    assert (reply.status, reply.param, reply.code) == (400, name, "unsupported_parameter")
    assert name in reply.message


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_asks_for_nothing_passes(name: str) -> None:
    for value in (None, *REFUSED[name].harmless):
        assert chat(**{name: value}) == chat()


def test_true_is_not_one() -> None:
    assert refused(best_of=True).param == "best_of"
    assert refused(length_penalty=True).param == "length_penalty"
    assert refused(n=True).param == "n"
    assert refused(temperature=True).param == "temperature"
    assert refused(logprobs=1).param == "logprobs"


def test_best_of_may_equal_n() -> None:
    assert chat(best_of=3, n=3).n == 3
    assert refused(best_of=3, n=2).param == "best_of"


def test_an_unknown_field_is_refused_with_the_nearest_known_one() -> None:
    reply = refused(temprature=1)
    assert (reply.status, reply.param, reply.code) == (400, "temprature", "unknown_parameter")
    assert "'temperature'" in reply.message
    assert "mean" not in refused(xyzzy=1).message


def test_null_is_absent() -> None:
    names = sorted(known(ChatFields) - {"messages"})
    assert chat(**dict.fromkeys(names)) == chat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 10**30}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["x" * 257]}, "stop[0]"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop_token_ids": [50]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"٣": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        *(
            ({"response_format": schema_format(name)}, "response_format.json_schema.name")
            for name in ("", "a b", "å", "answer\n", "x" * 65)
        ),
        ({"logit_bias": {str(i): 0 for i in range(1025)}}, "logit_bias"),
        ({"logit_bias": []}, "logit_bias"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"every": 1}}, "stream_options.every"),
        ({"model": "x" * 257}, "model"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": HELLO["messages"] * 4097}, "messages"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hello"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": ["user"], "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}
                ]
            },
            "messages[0].content[0].type",
        ),
        (
            {"messages": [*HELLO["messages"], {"role": "user", "content": "x", "contnet": 1}]},
            "messages[1].contnet",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "function_call": {}}, {"role": "function"}]},
            "messages[1].role",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
            "messages[0].function_call",
        ),
    ],
)
def test_a_bad_field_is_named_by_its_path(fields: dict[str, Any], param: str) -> None:
    reply = refused(**fields)
    assert (reply.status, reply.param) == (400, param)
    assert param in reply.message
    assert len(reply.message) < 300


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ApiError) as error:
        to_generation({}, ChatFields)
    assert error.value.reply.param == "messages"
    assert error.value.reply.code == "missing_required_parameter"


def test_everything_that_the_engine_honours_reaches_it() -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": -0.2, "logit_bias": {"3": -100, "07": 5}, "seed": -1,
        "min_tokens": 2, "ignore_eos": True, "stop": ["a", "b", "a"], "stop_token_ids": [4, 4],
        "logprobs": True, "top_logprobs": 3, "prompt_logprobs": 2,
    }  # fmt: skip
    sampling = chat_sampling(chat(**fields), INFO)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 40, 0.05)
    assert 0 < chat_sampling(chat(top_p=0), INFO).top_p < 1e-5
    assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.1, 0.1)
    assert sampling.frequency_penalty == -0.2
    assert sampling.logit_bias == {3: -100.0, 7: 5.0}
    assert sampling.seed == 2**64 - 1
    assert (sampling.min_tokens, sampling.ignore_eos) == (2, True)
    assert sampling.stop == ("a", "b")
    assert sampling.stop_token_ids == (4,)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (3, 2)


def test_minus_one_is_all_for_top_k() -> None:
    assert chat_sampling(chat(top_k=-1), INFO).top_k == 0


def test_chosen_tokens_alone_are_scored_without_top_logprobs() -> None:
    assert chat_sampling(chat(logprobs=True), INFO).logprobs == 0
    assert chat_sampling(chat(), INFO).logprobs is None


def test_an_echoed_prompt_is_scored_like_its_completion() -> None:
    body = to_generation({"prompt": "x", "echo": True, "logprobs": 2}, CompletionFields)
    sampling = completion_sampling(body, INFO)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (2, 2)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    assert check_ids([0, 49], "prompt", INFO) == (0, 49)
    with pytest.raises(ApiError, match=r"prompt\[1\]"):
        check_ids([0, 50], "prompt", INFO)


def test_messages_become_what_templates_render() -> None:
    messages = parse_messages(
        [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Vem "}, {"type": "text", "text": "är du?"}],
            },
            {"role": "assistant", "content": "Jag", "refusal": None, "annotations": [], "tool_calls": None},
            {"role": "user", "content": "Jaha", "name": "eva"},
        ]
    )
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Vem är du?"},
        {"role": "assistant", "content": "Jag"},
        {"role": "user", "content": "Jaha"},
    ]
    assert user_turns(messages) == ("Vem är du?", "Jaha")


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "kind", [ChatFields, CompletionFields, TokenizeFields, DetokenizeFields, LegacyFields]
)
@given(data=st.data())
def test_any_value_in_any_field_is_taken_or_refused_as_the_clients_mistake(
    kind: type[msgspec.Struct], data: st.DataObject
) -> None:
    names = st.sampled_from(sorted(known(kind) | set(REFUSED) | HINTS)) | st.text(max_size=5)
    value = data.draw(st.dictionaries(names, Json, max_size=4))
    status = 200
    try:
        if issubclass(kind, ChatFields):
            check(HELLO | value)
        elif issubclass(kind, CompletionFields):
            completion_sampling(to_generation({"prompt": "x"} | value, kind), INFO)
        else:
            to_fields(value, kind)
    except ApiError as error:
        status = error.reply.status
        error.reply.body()
    assert status in (200, 400)


def test_a_client_changes_nothing_of_the_template() -> None:
    for template in ("{{ x }}", "{% for i in range(10**9) %}{% endfor %}", ""):
        assert refused(chat_template=template).code == "unsupported_parameter"


def test_biases_are_counted_before_any_is_looked_up() -> None:
    with pytest.raises(ApiError, match="logit_bias"):
        to_generation(HELLO | {"logit_bias": {str(token): 0 for token in range(1025)}}, ChatFields)


@pytest.mark.parametrize(
    ("fields", "param", "expected"),
    [
        ({"tool_choice": "any"}, "tool_choice", "one of auto, none, required, an object"),
        ({"tool_choice": {"type": "tool", "function": {"name": "f"}}}, "tool_choice.type", "function"),
        ({"tools": [{"type": "custom"}]}, "tools[0].type", "function"),
        (
            {"response_format": {"type": "xml"}},
            "response_format.type",
            "one of text, json_object, json_schema",
        ),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "one of high, low, max,"),
    ],
)
def test_an_error_lists_the_values_that_a_field_can_have(
    fields: dict[str, Any], param: str, expected: str
) -> None:
    reply = refused(**fields)
    assert (reply.param, reply.code) == (param, "invalid_value")
    assert f": expected {expected}" in reply.message


def test_an_error_in_a_map_is_about_its_values() -> None:
    for value, expected in ((None, "float, got null"), (101, "float <= 100.0")):
        reply = refused(logit_bias={"5": 1, "6": value})
        assert reply.param == "logit_bias"
        assert reply.message == f"logit_bias has a value that is not valid: expected {expected}."


def test_options_of_structured_outputs_that_have_no_effect_are_taken() -> None:
    """vLLM's `StructuredOutputsParams`, sent whole."""
    others = ("json", "choice", "grammar", "json_object", "structural_tag", "whitespace_pattern", "_backend")
    options = ("disable_any_whitespace", "disable_additional_properties", "disable_fallback")
    idle = dict.fromkeys(others) | dict.fromkeys((*options, "_backend_was_auto"), False)
    chosen = chat(structured_outputs=idle | {"regex": "a"}).structured_outputs
    assert chosen is not None
    assert chosen.regex == "a"
    for name, value in {**dict.fromkeys(options, True), "whitespace_pattern": " ?"}.items():
        reply = refused(structured_outputs={"regex": "a", name: value})
        assert (reply.param, reply.code) == (f"structured_outputs.{name}", "unsupported_parameter")
        assert "is not supported here" in reply.message
