"""One question to several voices: how tests ask it, and how they read what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx

from tests.server.http_server import SV, Serving

PATH = "/api/oqt/multi-model-query"
FRAGA: dict[str, Any] = {"question": "Vem är du?", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
FIVE = ["base", "en", "sv", f"{SV}@v1.0", "sv=0.5,en=0.5"]


def several(serving: Serving) -> list[str]:
    """Five voices, four on an engine that blends none."""
    return FIVE if serving.engine.info.blends else FIVE[:4]


def ask(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    reply = client.post(PATH, json=FRAGA | fields)
    assert reply.status_code == 200, reply.text
    return reply.json()


def refuse(
    client: httpx.Client, headers: Mapping[str, str] | None = None, **fields: Any
) -> tuple[int, str, str]:
    reply = client.post(PATH, json=FRAGA | fields, headers=dict(headers or {}))
    error = reply.json()["error"]
    return reply.status_code, error["param"], error["code"]


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    lines = reply.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
