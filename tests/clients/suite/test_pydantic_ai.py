"""Pydantic AI, by `OpenAIChatModel`."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from pydantic_ai import Agent, ModelSettings, NativeOutput, RunContext, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from .conftest import EN, SV, Served
from .shapes import LONG, Answer


def agent(served: Served, name: str = "oneseek", **fields: Any) -> Agent[Any, Any]:
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=served.url, api_key=served.key))
    return Agent(model, model_settings={"max_tokens": 200}, retries=0, **fields)


def test_text_with_instructions_and_usage(server: Served) -> None:
    result = agent(server, EN, instructions="Be brief.").run_sync("Who are you?")
    assert result.output
    assert result.usage.output_tokens > 0


def test_a_conversation_goes_on(server: Served) -> None:
    asker = agent(server, SV)
    first = asker.run_sync("Vem är du?")
    assert asker.run_sync("Och nu?", message_history=first.all_messages()).output


def test_a_stream(server: Served) -> None:
    async def ask() -> tuple[str, str]:
        async with agent(server, EN).run_stream("Who are you?", model_settings={"temperature": 0}) as result:
            parts = [part async for part in result.stream_text(delta=True, debounce_by=None)]
            return "".join(parts), await result.get_output()

    joined, whole = asyncio.run(ask())
    assert joined == whole != ""


def test_native_output(server: Served) -> None:
    assert isinstance(agent(server, output_type=NativeOutput(Answer)).run_sync("Who?").output, Answer)


def test_tool_output(tool_server: Served) -> None:
    assert isinstance(agent(tool_server, output_type=ToolOutput(Answer)).run_sync("Who?").output, Answer)


def test_a_tool_round_trip(tool_server: Served, forced: dict[str, Any]) -> None:
    asked: list[str] = []
    asker = agent(tool_server)

    @asker.tool_plain
    def get_weather(city: Literal["Oslo", "Rome"]) -> str:  # pyright: ignore[reportUnusedFunction] registered
        """The weather of a city."""
        asked.append(city)
        return f"sunny in {city}"

    def settings(context: RunContext[Any]) -> ModelSettings:
        return {"extra_body": forced} if context.run_step == 1 else {}

    assert asker.run_sync("The weather?", model_settings=settings).output
    assert set(asked) <= {"Oslo", "Rome"}
    assert asked


def test_errors_are_the_librarys_own(server: Served) -> None:
    for name, question, status in (("nobody", "Who?", 404), (EN, LONG, 400)):
        with pytest.raises(ModelHTTPError) as told:
            agent(server, name).run_sync(question)
        assert told.value.status_code == status
