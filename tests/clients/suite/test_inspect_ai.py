"""Inspect, by its provider for servers of OpenAI's API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.scorer import includes
from inspect_ai.tool import Tool, ToolFunction, tool

from .conftest import EN, Served


@tool
def get_weather() -> Tool:
    async def execute(sunny: bool) -> str:
        """The weather.

        Args:
            sunny: Whether to hope for sun.
        """
        return "sunny" if sunny else "rain"

    return execute


def model(served: Served, name: str = EN, **fields: Any) -> Model:
    config = GenerateConfig(**({"max_tokens": 60, "temperature": 0, "max_retries": 0} | fields))
    return get_model(
        f"openai-api/oneseek/{name}", base_url=served.url, api_key=served.key, config=config, memoize=False
    )


def test_an_evaluation(server: Served, tmp_path: Path) -> None:
    task = Task([Sample("Who are you?", target="OneSeek")], scorer=includes())
    (log,) = evaluate(task, model=model(server), log_dir=str(tmp_path), display="none")
    assert (log.status, log.error) == ("success", None)
    assert log.results.scores[0].metrics["accuracy"].value == 1
    assert sum(usage.output_tokens for usage in log.stats.model_usage.values()) > 0


def test_log_probabilities_choices_stop_and_seed(server: Served) -> None:
    asked = model(
        server, logprobs=True, top_logprobs=2, num_choices=2, stop_seqs=["."], seed=1, temperature=1
    )
    answer = asyncio.run(asked.generate("Who are you?"))
    assert len(answer.choices) == 2
    assert answer.choices[0].logprobs.content[0].top_logprobs
    assert "." not in answer.completion


def test_a_tool_call(tool_server: Served) -> None:
    asked = model(tool_server, "oneseek", parallel_tool_calls=False)
    answer = asyncio.run(
        asked.generate(
            [ChatMessageUser(content="The weather?")],
            tools=[get_weather()], tool_choice=ToolFunction("get_weather"),
        )
    )  # fmt: skip
    (call,) = answer.message.tool_calls
    assert (call.function, set(call.arguments)) == ("get_weather", {"sunny"})


def test_a_context_that_is_too_long_stops_a_sample_alone(server: Served) -> None:
    answer = asyncio.run(model(server).generate("word " * 2000))
    assert answer.stop_reason == "model_length"
