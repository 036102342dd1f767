"""What every client asks for: a question, an answer's shape, a tool."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

ASK: list[Any] = [{"role": "user", "content": "Who are you?"}]
LONG = "word " * 2000
"""More than the base's context of 1,024 tokens."""
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Oslo", "Rome"]},
                "sunny": {"type": "boolean"},
            },
            "required": ["city"],
        },
    },
}


class Answer(BaseModel):
    """A colour. As pydantic's schemas are, its own is not closed."""

    colour: Literal["red", "green", "blue"]
    certain: bool
    tags: list[Literal["warm", "cold"]] = Field(max_length=2)
