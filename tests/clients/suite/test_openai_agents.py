"""OpenAI's Agents SDK, by chat completions."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

from .conftest import EN, Served
from .shapes import LONG, Answer

set_tracing_disabled(True)
CALLED: list[str] = []


@function_tool
def get_weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    CALLED.append(city)
    return f"sunny in {city}"


def agent(
    served: Served, name: str = "oneseek", settings: dict[str, Any] | None = None, **fields: Any
) -> Agent[Any]:
    client = openai.AsyncOpenAI(base_url=served.url, api_key=served.key, max_retries=0)
    model = OpenAIChatCompletionsModel(model=name, openai_client=client)
    settings = {"max_tokens": 100} | (settings or {})
    return Agent(name="one", model=model, model_settings=ModelSettings(**settings), **fields)


def run(asker: Agent[Any], question: str = "Who are you?") -> Any:
    return asyncio.run(Runner.run(asker, question))


def test_a_run(server: Served) -> None:
    result = run(agent(server, EN, instructions="Be brief."))
    assert result.final_output
    assert result.context_wrapper.usage.total_tokens > 0


def test_a_streamed_run(server: Served) -> None:
    async def ask() -> tuple[str, str]:
        result = Runner.run_streamed(agent(server, EN), "Who are you?")
        deltas = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return "".join(deltas), result.final_output

    joined, whole = asyncio.run(ask())
    assert joined == whole != ""


def test_structured_output(server: Served) -> None:
    assert isinstance(run(agent(server, output_type=Answer)).final_output, Answer)


@pytest.mark.parametrize("choice", ["required", "get_weather"])
def test_a_tool_round_trip(tool_server: Served, choice: str) -> None:
    CALLED.clear()
    settings = {"tool_choice": choice, "parallel_tool_calls": False}
    assert run(agent(tool_server, settings=settings, tools=[get_weather])).final_output
    assert CALLED


def test_errors_are_the_librarys_own(server: Served) -> None:
    with pytest.raises(openai.NotFoundError):
        run(agent(server, "nobody"))
    with pytest.raises(openai.BadRequestError):
        run(agent(server, EN), LONG)
