"""Schemas as pydantic and those that build on it write them: answers of the mini base fit their models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from adapters.bases import SHIPPED
from server.config.settings import Settings
from tests.server.http_server import Serving, make_app, served

SEEDS = 8
LENGTH = 400
Short = Annotated[str, Field(max_length=12)]
Digit = Annotated[int, Field(ge=0, le=9)]


class Colour(Enum):
    RED = "red"
    BLUE = "blå"


class Point(BaseModel):
    """A place on a map."""

    x: Digit
    y: Digit = 0


class Person(BaseModel):
    name: Short
    age: Digit | None = None
    nick: Short | None = Field(default=None, description="What friends say.")
    likes: Annotated[list[Colour], Field(max_length=2)] = []
    home: Point = Field(description="Where they live.")
    work: Point | None = None


class Cat(BaseModel):
    kind: Literal["cat", "kitten"]
    lives: Digit


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: Annotated[list[Short], Field(max_length=2)]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    other: Cat | Dog | None


class Stock(BaseModel):
    counts: Annotated[dict[Short, Digit], Field(max_length=3)]
    by_colour: dict[Colour, Digit]
    kind: Literal["a", 2, True]
    pair: tuple[bool, Digit]


class Leaf(BaseModel):
    value: Digit
    next: Leaf | None = None


class Base(BaseModel):
    model_config = ConfigDict(title="A base")
    number: Digit


class Derived(Base):
    points: Annotated[list[Point], Field(min_length=1, max_length=2)]


class Nothing(BaseModel):
    pass


MODELS: dict[str, Any] = {
    "person": Person,
    "owner": Owner,
    "stock": Stock,
    "leaf": Leaf,
    "derived": Derived,
    "nothing": Nothing,
    "union": Cat | Dog,
    "list": Annotated[list[Point], Field(max_length=3)],
}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=8, max_queue=64, log_level="warning", drain_seconds=2)
    made = make_app(Path(SHIPPED) / "base", {}, tmp_path_factory.mktemp("graphs"), settings, kv_tokens=8192)
    with served(made, settings, {}) as serving:
        yield serving


def asked(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def ask(server: Serving, **fields: Any) -> list[dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": "Vem är du?"}], "temperature": 1, "max_tokens": LENGTH}
    answer: httpx.Response = server.http.post("/v1/chat/completions", json=body | {"n": SEEDS} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_every_answer_fits_its_model(mini: Serving, model: Any) -> None:
    kind = TypeAdapter[Any](model)
    for choice in ask(mini, response_format=asked(kind.json_schema()), seed=11):
        assert choice["finish_reason"] == "stop", choice
        value = kind.validate_json(choice["message"]["content"], strict=True, extra="forbid")
        assert kind.validate_json(kind.dump_json(value)) == value


def test_the_arguments_of_a_call_fit_its_model(mini: Serving) -> None:
    tool = {"type": "function", "function": {"name": "save", "parameters": Person.model_json_schema()}}
    chosen = {"type": "function", "function": {"name": "save"}}
    for choice in ask(mini, tools=[tool], tool_choice=chosen, seed=3):
        assert choice["finish_reason"] == "stop", choice
        (call,) = choice["message"]["tool_calls"]
        Person.model_validate_json(call["function"]["arguments"], strict=True, extra="forbid")


def test_schemas_from_the_field_are_served(mini: Serving) -> None:
    values: list[dict[str, Any]] = [
        {"type": "array", "items": {"type": "integer", "maximum": 9}, "uniqueItems": False, "maxItems": 2},
        {"type": "string", "format": "password", "writeOnly": True, "maxLength": 9},
        {"type": "string", "format": "binary", "minLength": 0, "maxLength": 9},
        {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
    ]
    for value in values:
        schema = {"type": "object", "properties": {"a": value}, "required": ["a"]}
        for choice in ask(mini, response_format=asked(schema), n=2):
            if choice["finish_reason"] == "stop":
                assert set(json.loads(choice["message"]["content"])) == {"a"}
