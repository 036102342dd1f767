"""LangChain, by `ChatOpenAI`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from .conftest import EN, SV, Full, Served
from .shapes import LONG, Answer


@tool
def get_weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def chat(served: Served, model: str = EN, **fields: Any) -> ChatOpenAI:
    fields = {"max_tokens": 100, "max_retries": 0} | fields
    return ChatOpenAI(model=model, base_url=served.url, api_key=served.key, **fields)


def test_invoke_with_usage_and_metadata(server: Served) -> None:
    answer = chat(server, temperature=0).invoke([SystemMessage("Be brief."), HumanMessage("Who are you?")])
    assert answer.content
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["input_tokens"]
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def test_stream(server: Served) -> None:
    chunks = list(chat(server, temperature=0, stream_usage=True).stream("Who are you?"))
    assert (
        "".join(chunk.content for chunk in chunks)
        == chat(server, temperature=0).invoke("Who are you?").content
    )
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.usage_metadata["output_tokens"] > 0


def test_batches_and_async(server: Served) -> None:
    asked = chat(server, "oneseek", max_tokens=5)
    assert len(asked.batch(["Who are you?", "Vem är du?"])) == 2
    assert len(asyncio.run(asked.abatch(["Who are you?", "Vem är du?"]))) == 2


def test_log_probabilities_choices_and_stop(server: Served) -> None:
    answer = chat(server, logprobs=True, top_logprobs=2).invoke("Who are you?", stop=["."], seed=3)
    assert "." not in answer.content
    assert len(answer.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2
    assert len(chat(server, n=2).generate([[HumanMessage("Who are you?")]]).generations[0]) == 2


def test_the_header_chooses_the_adapter(server: Served) -> None:
    asked = chat(server, "oneseek", default_headers={"X-OneSeek-Adapter": SV}, include_response_headers=True)
    assert asked.invoke("Who are you?").response_metadata["headers"]["x-oneseek-adapter"].startswith(SV)


@pytest.mark.parametrize("strict", [None, True])
def test_structured_output_by_schema(server: Served, strict: bool | None) -> None:
    asked = chat(server, "oneseek").with_structured_output(Answer, method="json_schema", strict=strict)
    assert isinstance(asked.invoke("Who are you?"), Answer)


def test_structured_output_by_tool(tool_server: Served) -> None:
    asked = chat(tool_server, "oneseek").with_structured_output(Answer, method="function_calling")
    assert isinstance(asked.invoke("Who are you?"), Answer)


def test_structured_output_by_json_mode(server: Served, closing: dict[str, int]) -> None:
    asked = chat(server, logit_bias=closing).with_structured_output(
        {"title": "any", "type": "object"}, method="json_mode"
    )
    assert isinstance(asked.invoke("Who are you?"), dict)


@pytest.mark.parametrize("choice", ["any", "get_weather"])
def test_a_tool_round_trip(tool_server: Served, choice: str) -> None:
    model = chat(tool_server, "oneseek")
    question = HumanMessage("The weather?")
    first = model.bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False).invoke([question])
    (call,) = first.tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert model.bind_tools([get_weather]).invoke([question, first, result]).content


def test_streamed_tool_calls(tool_server: Served, forced: dict[str, Any]) -> None:
    model = chat(tool_server, "oneseek").bind_tools([get_weather]).bind(extra_body=forced)
    chunks = list(model.stream("The weather?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.tool_calls[0]["args"]["city"] in ("Oslo", "Rome")


def test_errors_are_the_librarys_own(server: Served) -> None:
    with pytest.raises(ContextOverflowError):
        chat(server).invoke(LONG)
    with pytest.raises(openai.NotFoundError):
        chat(server, "nobody").invoke("Who are you?")
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(model=EN, base_url=server.url, api_key="wrong").invoke("Who are you?")
    vectors = OpenAIEmbeddings(
        model="oneseek-mini", base_url=server.url, api_key=server.key, check_embedding_ctx_length=False
    )
    with pytest.raises(openai.BadRequestError):
        vectors.embed_query("text")


def test_a_full_queue_is_a_rate_limit(full_server: Full) -> None:
    with pytest.raises(openai.RateLimitError):
        chat(full_server).invoke("Who are you?")
    full_server.release_soon()
    assert chat(full_server, max_retries=9, max_tokens=2).invoke("Who are you?")
