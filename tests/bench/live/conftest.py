"""Interpreters of the rivals; `make test-rivals` names them."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vllm-python", default="", help="has vLLM and OneSeek's serving set")
    parser.addoption("--llama-python", default="", help="has xllamacpp and gguf")
