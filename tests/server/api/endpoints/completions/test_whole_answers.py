"""An engine learns if the client gets nothing before the end: such an answer may begin again elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.request import Delta, GenerationRequest
from tests.server.http_server import Serving

SWEDISH, ENGLISH = "Vem är du, och vad kan du göra?", "Who are you, and what can you do?"
TURN = {"messages": [{"role": "user", "content": ENGLISH}], "max_tokens": 2}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "requests"),
    [
        ("/v1/completions", {"prompt": ENGLISH, "max_tokens": 2}, 1),
        ("/v1/completions", {"prompt": [SWEDISH, ENGLISH], "max_tokens": 2, "n": 2}, 4),
        ("/v1/chat/completions", TURN | {"n": 2}, 2),
        ("/v1/responses", {"input": ENGLISH, "max_output_tokens": 2}, 1),
    ],
)
def test_what_is_not_streamed_is_whole(
    path: str,
    body: dict[str, Any],
    requests: int,
    stream: bool,
    serving: Serving,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generate, seen = serving.engine.generate, list[GenerationRequest]()

    def watched(request: GenerationRequest) -> AsyncIterator[Delta]:
        seen.append(request)
        return generate(request)

    monkeypatch.setattr(serving.engine, "generate", watched)
    reply = client.post(path, json=body | {"stream": stream})
    assert reply.status_code == 200, reply.text
    assert [request.whole for request in seen] == [not stream] * requests
