"""Vercel's AI SDK, on Node, by its provider for servers of OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable

from .conftest import Served

Run = Callable[[str, Served], None]


def test_text_streams_objects_and_errors(run_node: Run, server: Served) -> None:
    run_node("ai_sdk.mjs", server)


def test_tools(run_node: Run, tool_server: Served) -> None:
    run_node("ai_sdk_tools.mjs", tool_server)
