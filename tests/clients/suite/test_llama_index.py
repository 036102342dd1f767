"""LlamaIndex, by `OpenAILike`."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from .conftest import EN, Full, Served
from .shapes import LONG, Answer


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def model(served: Served, name: str = EN, **fields: Any) -> OpenAILike:
    fields = {"is_chat_model": True, "context_window": 1024, "max_tokens": 100, "max_retries": 0} | fields
    return OpenAILike(model=name, api_base=served.url, api_key=served.key, **fields)


def test_complete_and_chat(server: Served) -> None:
    assert model(server).complete("Who are you?").text
    assert model(server, "oneseek-mini", is_chat_model=False).complete("One").text
    answer = model(server).chat(
        [ChatMessage(role="system", content="Be brief."), ChatMessage(content="Who?")]
    )
    assert answer.message.content
    assert answer.raw.usage.total_tokens > 0


def test_streams(server: Served) -> None:
    last = list(model(server, temperature=0).stream_chat([ChatMessage(content="Who are you?")]))[-1]
    assert last.message.content == model(server, temperature=0).complete("Who are you?").text


def test_async(server: Served) -> None:
    async def ask() -> str | None:
        return (await model(server).achat([ChatMessage(content="Who are you?")])).message.content

    assert asyncio.run(ask())


def test_structured_output(tool_server: Served) -> None:
    structured = model(tool_server, "oneseek", is_function_calling_model=True).as_structured_llm(Answer)
    assert isinstance(structured.complete("Who are you?").raw, Answer)


def test_structured_output_by_schema(server: Served) -> None:
    structured = model(server, "oneseek", should_use_structured_outputs=True).as_structured_llm(Answer)
    assert isinstance(structured.complete("Who are you?").raw, Answer)


def test_tool_calls(tool_server: Served) -> None:
    llm = model(tool_server, "oneseek", is_function_calling_model=True)
    answer = llm.chat_with_tools(
        [FunctionTool.from_defaults(get_weather)], "The weather?", tool_required=True
    )
    assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)[0].tool_name == "get_weather"


def test_errors_are_the_librarys_own(server: Served) -> None:
    with pytest.raises(openai.NotFoundError):
        model(server, "nobody").complete("Who are you?")
    with pytest.raises(openai.BadRequestError) as large:
        model(server).complete(LONG)
    assert large.value.code == "context_length_exceeded"


def test_a_full_queue_is_waited_for(full_server: Full) -> None:
    full_server.release_soon()
    assert model(full_server, max_retries=9, max_tokens=2).complete("Who are you?").text
