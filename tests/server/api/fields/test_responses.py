"""Which fields and inputs `/v1/responses` takes, which it refuses, and that an error names them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_create_params import ResponseCreateParamsBase as Parameters
from openai.types.responses.response_includable import ResponseIncludable

from server.api.fields.decode import to_generation
from server.api.fields.generation import known
from server.api.fields.responses import (
    ECHOED,
    RESPONSE_HINTS,
    RESPONSE_REFUSED,
    IncludeOption,
    ResponseFields,
    response_table,
)
from server.api.parsing.responses import parse_input
from server.api.parsing.sampling import response_sampling
from server.errors import ApiError, ErrorReply
from server.metrics.engine_state import EngineInfo
from server.serving.sampling_defaults import SamplingDefaults

INFO = EngineInfo(
    name="embedded", base_digest="sha256:0", context=100, vocabulary=50, blends=True, max_adapters=4
)
USER = {"role": "user", "content": "Hej"}


def fields(**given: Any) -> ResponseFields:
    return to_generation(
        {"input": "Hej"} | given, ResponseFields, refused=RESPONSE_REFUSED, hints=RESPONSE_HINTS
    )


def check(value: dict[str, Any]) -> None:
    body = fields(**value)
    response_sampling(body, INFO)
    parse_input(body.input, body.instructions)


def refused(**given: Any) -> ErrorReply:
    with pytest.raises(ApiError) as error:
        check(given)
    return error.value.reply


def test_every_field_of_the_official_client_has_its_place() -> None:
    assert not set(Parameters.__annotations__) - set(response_table())
    assert set(IncludeOption.__args__) == set(ResponseIncludable.__args__)


def test_no_field_is_of_two_kinds() -> None:
    honoured = known(ResponseFields)
    assert honoured >= ECHOED
    assert not RESPONSE_HINTS & set(RESPONSE_REFUSED)
    assert not RESPONSE_HINTS & honoured
    assert not honoured & set(RESPONSE_REFUSED)


@pytest.mark.parametrize("name", sorted(RESPONSE_HINTS))
def test_hints_are_taken(name: str) -> None:
    assert fields(**{name: {"any": "thing"}}) == fields()


@pytest.mark.parametrize("name", sorted(RESPONSE_REFUSED))
def test_what_cannot_be_honoured_is_refused_by_name(name: str) -> None:
    reply = refused(**{name: {"some": "thing"}})
    assert (reply.status, reply.param, reply.code) == (400, name, "unsupported_parameter")
    assert name in reply.message
    for value in (None, *RESPONSE_REFUSED[name].harmless):
        assert fields(**{name: value}) == fields()


def test_tools_pass_where_none_may_be_called() -> None:
    tool = {"type": "function", "name": "f", "parameters": {}}
    assert fields(tools=[tool], tool_choice="none") == fields()
    assert refused(tools=[tool]).param == "tools"
    assert refused(tools=[tool], tool_choice="required").param in ("tools", "tool_choice")


def test_what_is_said_of_nothing_stored() -> None:
    for name in ("previous_response_id", "conversation"):
        assert refused(**{name: "resp_1"}).param == name
    assert refused(background=True).param == "background"
    assert fields(store=True) == fields(store=False) == fields()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": 3}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["Hej"]}, "input[0]"),
        ({"input": [USER] * 4097}, "input"),
        ({"input": [{"content": "Hej"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "Hej"}]}, "input[0].role"),
        ({"input": [{"role": ["user"], "content": "Hej"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [USER, {"role": "user", "content": 3}]}, "input[1].content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///x"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "txet": 1}]}]},
            "input[0].content[0].txet",
        ),
        ({"input": [USER | {"contnet": "eva"}]}, "input[0].contnet"),
        ({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": 3}]}, "input[0].type"),
        ({"instructions": 3}, "instructions"),
        ({"instructions": [USER]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        (
            {"stream": True, "stream_options": {"include_obfuscatoin": True}},
            "stream_options.include_obfuscatoin",
        ),
        ({"text": {"format": "json"}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"verbossity": "low"}}, "text.verbossity"),
        ({"include": ["everything"]}, "include[0]"),
        ({"include": "message.output_text.logprobs"}, "include"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"metadata": {str(n): "a" for n in range(17)}}, "metadata"),
        ({"user": 3}, "user"),
        ({"safety_identifier": "x" * 257}, "safety_identifier"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"max_output_token": 3}, "max_output_token"),
    ],
)
def test_a_bad_field_is_named_by_its_path(given: dict[str, Any], param: str) -> None:
    reply = refused(**given)
    assert (reply.status, reply.param) == (400, param)
    assert param in reply.message
    assert len(reply.message) < 300


def test_everything_that_the_engine_honours_reaches_it() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
        "presence_penalty": 0.1, "frequency_penalty": -0.2, "logit_bias": {"3": -100}, "seed": -1,
        "min_tokens": 2, "ignore_eos": True, "stop": "a", "stop_token_ids": [4], "max_output_tokens": 7,
        "include": ["message.output_text.logprobs"], "top_logprobs": 3,
    }  # fmt: skip
    sampling = response_sampling(fields(**given), INFO)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 40, 0.05)
    assert (sampling.repetition_penalty, sampling.presence_penalty) == (1.1, 0.1)
    assert (sampling.frequency_penalty, sampling.logit_bias) == (-0.2, {3: -100.0})
    assert (sampling.seed, sampling.min_tokens, sampling.ignore_eos) == (2**64 - 1, 2, True)
    assert (sampling.stop, sampling.stop_token_ids, sampling.max_tokens) == (("a",), (4,), 7)
    assert (sampling.logprobs, sampling.prompt_logprobs) == (3, None)
    silent = response_sampling(fields(), INFO, SamplingDefaults(temperature=0.3, top_p=0.8))
    assert (silent.temperature, silent.top_p, silent.logprobs) == (0.3, 0.8, None)


def test_a_text_is_a_users_message() -> None:
    assert parse_input("Hej", None) == [{"role": "user", "content": "Hej"}]
    assert parse_input("Hej", "Var kort.") == [
        {"role": "system", "content": "Var kort."},
        {"role": "user", "content": "Hej"},
    ]


def test_items_become_what_templates_render() -> None:
    messages = parse_input(
        [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Vem "}, {"type": "text", "text": "?"}],
            },
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "phase": None,
                "content": [{"type": "output_text", "text": "Jag", "annotations": [], "logprobs": []}],
            },
            {"type": None, "role": "user", "content": "Jaha"},
        ],
        None,
    )
    assert messages == [
        {"role": "user", "content": "Vem ?"},
        {"role": "assistant", "content": "Jag"},
        {"role": "user", "content": "Jaha"},
    ]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_and_a_first_system_message_are_one(role: str) -> None:
    messages = parse_input([{"role": role, "content": "På svenska."}, USER], "Var kort.")
    assert messages == [{"role": "system", "content": "Var kort.\n\nPå svenska."}, USER]


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
Words = st.sampled_from(
    ["message", "reasoning", "user", "assistant", "tool", "input_text", "output_text", "text", "Hej"]
)
Parts = st.dictionaries(st.sampled_from(["type", "text", "annotations"]), Words | Json, max_size=3)
Items = st.dictionaries(
    st.sampled_from(["type", "role", "content", "id", "status", "call_id"]),
    Words | Json | st.lists(Parts, max_size=2),
    max_size=4,
)


def outcome(value: dict[str, Any]) -> tuple[int, str | None]:
    try:
        check(value)
    except ApiError as error:
        error.reply.body()
        return error.reply.status, error.reply.param
    return 200, None


@given(
    data=st.dictionaries(
        st.sampled_from(sorted(response_table())) | st.text(max_size=5), Json | st.lists(Items), max_size=4
    )
)
def test_any_value_in_any_field_is_taken_or_refused_as_the_clients_mistake(data: dict[str, Any]) -> None:
    status, _ = outcome(data)
    assert status in (200, 400)


@given(items=st.lists(Items, min_size=1, max_size=3))
def test_any_item_is_taken_or_refused_by_its_path(items: list[dict[str, Any]]) -> None:
    status, param = outcome({"input": items})
    assert status == 200 or (param or "").startswith("input[")
