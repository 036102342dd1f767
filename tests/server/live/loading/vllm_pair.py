"""vLLM's pair of endpoints: their paths, and the form of their errors."""

from __future__ import annotations

from typing import Any

import httpx

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    found = body.pop("error")
    assert set(found) == {"message", "type", "param", "code"}
    assert body == {"object": "error", **found}, "older versions of vLLM have no `error` around them"
    assert found["code"] == answer.status_code, "vLLM's code is the status"
    return found
