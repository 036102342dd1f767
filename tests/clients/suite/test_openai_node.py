"""OpenAI's own library for JavaScript, on Node."""

from __future__ import annotations

from collections.abc import Callable

from .conftest import Full, Served

Run = Callable[[str, Served], None]


def test_chat_streams_schemas_and_errors(run_node: Run, server: Served) -> None:
    run_node("openai.mjs", server)


def test_tools(run_node: Run, tool_server: Served) -> None:
    run_node("openai_tools.mjs", tool_server)


def test_a_full_queue_is_waited_for(run_node: Run, full_server: Full) -> None:
    full_server.release_soon()
    run_node("openai_full.mjs", full_server)
