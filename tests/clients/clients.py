# ruff: noqa: E501 (a row of the table is a line)
"""The client libraries that the suite runs, and what it shows of each. docs/clients.md is made of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Client:
    """One library: its module in `suite` is named after it."""

    name: str
    """`openai` is tested by suite/test_openai.py."""
    title: str
    package: str
    """Its name on PyPI, or on npm where `node` says so."""
    shows: str
    node: bool = False
    limits: str = ""
    """What does not work, and what to do instead."""


CLIENTS = (
    Client(
        "openai", "OpenAI for Python", "openai",
        "chat, streams, async, completions, responses, structured output, tools, log probabilities, `n`, errors, retries",
        limits="`embeddings` works only if the base computes embeddings",
    ),
    Client(
        "openai_node", "OpenAI for JavaScript", "openai",
        "chat, streams, structured output with zod, tools, errors, retries", node=True,
    ),
    Client(
        "ai_sdk", "Vercel AI SDK", "ai",
        "`generateText`, `streamText`, structured output, tool loops, errors; with the provider `@ai-sdk/openai-compatible`", node=True,
        limits="set `supportsStructuredOutputs: true`, else the SDK sends no schema",
    ),
    Client(
        "litellm", "LiteLLM", "litellm",
        "`openai/` and `hosted_vllm/` models, streams, async, structured output, tools, LiteLLM's exceptions, fallbacks",
    ),
    Client(
        "langchain", "LangChain", "langchain-openai",
        "`invoke`, `stream`, `batch`, async, structured output by schema and by tool, tool round trips, usage, errors",
        limits="`OpenAIEmbeddings` needs `check_embedding_ctx_length=False`, as for any server other than OpenAI's",
    ),
    Client(
        "llama_index", "LlamaIndex", "llama-index-llms-openai-like",
        "`complete`, `chat`, streams, async, structured output by tool, errors",
        limits="set `is_chat_model`, `is_function_calling_model` and `context_window`, which LlamaIndex cannot query",
    ),
    Client(
        "instructor", "Instructor", "instructor",
        "modes TOOLS, TOOLS_STRICT, PARALLEL_TOOLS, JSON, MD_JSON, JSON_SCHEMA; partial and iterable; async; retries",
        limits="with PARALLEL_TOOLS and MD_JSON, the answer's format is not enforced, so the model must know it",
    ),
    Client(
        "pydantic_ai", "Pydantic AI", "pydantic-ai-slim",
        "text, streams, native and tool output, tool round trips, usage, errors",
    ),
    Client(
        "openai_agents", "OpenAI Agents SDK", "openai-agents",
        "runs and streamed runs, tools, structured output; with `OpenAIChatCompletionsModel`",
        limits="turn tracing off, else the SDK sends traces to OpenAI",
    ),
    Client(
        "inspect_ai", "Inspect", "inspect-ai",
        "an evaluation, log probabilities, tools; with Inspect's provider `openai-api`",
    ),
    Client(
        "open_webui", "Open WebUI", "",
        "copies of Open WebUI's requests: list of models, streamed chat, title, tags, follow-ups",
    ),
    Client(
        "schemathesis", "Schemathesis", "schemathesis",
        "every operation of `/openapi.json`, with generated requests that follow its schema and requests that do not",
    ),
)  # fmt: skip


def versions(client: Client) -> list[str]:
    """Those that the locks hold; none of what is only sent again."""
    if not client.package:
        return []
    if client.node:
        lock = json.loads((HERE / "node" / "package-lock.json").read_text(encoding="utf-8"))
        return [lock["packages"][f"node_modules/{client.package}"]["version"]]
    locks = "".join(
        (HERE / name).read_text(encoding="utf-8") for name in ("clients.lock", "clients-openai3.lock")
    )
    return re.findall(rf"^{re.escape(client.package)}==(\S+)", locks, re.MULTILINE)
