"""Instructor, in every mode that is not another vendor's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

import instructor
import openai
import pytest
from instructor import Mode
from instructor.core import InstructorRetryException
from pydantic import BaseModel

from .conftest import Full, Served
from .shapes import ASK, Answer

FENCED = r'```json\n\{"colour": "(red|blue)", "certain": (true|false), "tags": \[\]\}\n```'


class Loose(BaseModel):
    """What any JSON object fits, for modes that constrain nothing."""

    note: Any = None


def client(served: Served, mode: Mode, **options: Any) -> instructor.Instructor:
    inner = openai.OpenAI(base_url=served.url, api_key=served.key, **({"max_retries": 0} | options))
    return instructor.from_openai(inner, mode=mode)


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "oneseek", "messages": ASK, "max_tokens": 200, "max_retries": 0} | fields


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.TOOLS_STRICT])
def test_by_tool(tool_server: Served, mode: Mode) -> None:
    assert isinstance(client(tool_server, mode).create(response_model=Answer, **asked()), Answer)


@pytest.mark.parametrize("mode", [Mode.TOOLS, Mode.JSON_SCHEMA])
def test_on_the_base_that_ships(server: Served, mode: Mode) -> None:
    found, completion = client(server, mode).create_with_completion(response_model=Answer, **asked())
    assert isinstance(found, Answer)
    assert completion.usage.total_tokens > 0


def test_json(server: Served, closing: dict[str, int]) -> None:
    found = client(server, Mode.JSON).create(response_model=Loose, logit_bias=closing, **asked())
    assert isinstance(found, Loose)


def test_markdown(server: Served) -> None:
    extra = {"structured_outputs": {"regex": FENCED}}
    found = client(server, Mode.MD_JSON).create(response_model=Answer, extra_body=extra, **asked())
    assert isinstance(found, Answer)


def test_parallel_tools(tool_server: Served, forced: dict[str, Any]) -> None:
    class Blue(BaseModel):
        certain: bool

    found = client(tool_server, Mode.PARALLEL_TOOLS).create(
        response_model=Iterable[Answer | Blue], extra_body=forced, **asked()
    )
    assert all(isinstance(item, Answer | Blue) for item in found)


def test_partial_and_iterable(server: Served) -> None:
    asker = client(server, Mode.JSON_SCHEMA)
    parts = list(asker.create_partial(response_model=Answer, **asked()))
    assert Answer.model_validate(parts[-1].model_dump())


def test_async(server: Served) -> None:
    inner = openai.AsyncOpenAI(base_url=server.url, api_key=server.key)
    asker = instructor.from_openai(inner, mode=Mode.JSON_SCHEMA)
    assert isinstance(asyncio.run(asker.create(response_model=Answer, **asked())), Answer)


def test_validation_is_retried(server: Served) -> None:
    """It sends its complaint as another turn of the user's, beside the answer."""

    class Never(BaseModel):
        colour: Literal["red"]

        def model_post_init(self, context: object) -> None:
            raise ValueError("not this one")

    with pytest.raises(InstructorRetryException) as told:
        client(server, Mode.JSON_SCHEMA).create(response_model=Never, **asked(max_retries=1))
    assert told.value.n_attempts == 2


def test_a_full_queue_is_waited_for(full_server: Full) -> None:
    full_server.release_soon()
    asker = client(full_server, Mode.JSON_SCHEMA, max_retries=9)
    assert isinstance(asker.create(response_model=Answer, **asked()), Answer)
