"""Serve transformers + PEFT over HTTP in a simple, common way: one request at a time, whose adapter is loaded
for it.

    ENV/bin/python -m bench.rivals.peft_service MODEL --port 8001 en=PATH sv=PATH

The base stays in memory. For each request, the service loads the adapter from disk, generates the answer, and
removes the adapter again. It streams chats in the format of OpenAI's API, with only the features that the
benchmark uses. ENV is a Python environment with torch, transformers, peft, starlette and uvicorn.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


class PeftService:
    """A base with named adapters. Each request loads its adapter from disk."""

    def __init__(self, base: Path, adapters: dict[str, Path], dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._adapters = adapters
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self._base: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
        self._base.eval()
        self._one_at_a_time = threading.Lock()
        self.context = int(self._base.config.max_position_embeddings)

    def models(self) -> list[dict[str, Any]]:
        """Return the base and its adapters as a list of models in OpenAI's format."""
        named = [("base", None), *((name, "base") for name in self._adapters)]
        return [
            {"id": name, "object": "model", "parent": parent, "max_model_len": self.context}
            for name, parent in named
        ]

    def answer(self, body: dict[str, Any]) -> Iterator[bytes]:
        """Generate the answer to a chat, and yield its server-sent events."""
        text: str = self._tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        inputs = self._tokenizer(text, return_tensors="pt", add_special_tokens=False)
        prompt, made, finish = int(inputs["input_ids"].shape[1]), 0, "length"
        with self._one_at_a_time:
            for piece in self._generate(body, inputs):
                made += 1
                yield _event(
                    body["model"], [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]
                )
        if made < body["max_tokens"]:
            finish = "stop"
        yield _event(body["model"], [{"index": 0, "delta": {}, "finish_reason": finish}])
        usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        yield _event(body["model"], [], usage)
        yield b"data: [DONE]\n\n"

    def _generate(self, body: dict[str, Any], inputs: Any) -> Iterator[str]:
        """Yield the text of each token. `generate` runs in a thread and passes on the tokens through a
        streamer, as in the documentation of transformers.
        """
        from peft import PeftModel

        folder = self._adapters.get(body["model"])
        model = PeftModel.from_pretrained(self._base, folder) if folder else self._base
        streamer = _one_piece_a_token(self._tokenizer)
        least = body["max_tokens"] if body.get("ignore_eos") else 1
        options = {"max_new_tokens": body["max_tokens"], "min_new_tokens": least, "do_sample": False}
        options |= {"pad_token_id": self._tokenizer.eos_token_id, "streamer": streamer}
        worker = threading.Thread(target=model.generate, kwargs={**inputs, **options})
        worker.start()
        yield from streamer
        worker.join()
        if folder:
            self._base = model.unload()


def _one_piece_a_token(tokenizer: Any) -> Any:
    import queue

    from transformers.generation.streamers import BaseStreamer

    class Pieces(BaseStreamer):
        """Passes on the text of each token as soon as it is generated. The first tokens are skipped, because
        they are the prompt.
        """

        def __init__(self) -> None:
            self._pieces: queue.Queue[str | None] = queue.Queue()
            self._prompt_seen = False
            self._tokens: list[int] = []

        def put(self, value: Any) -> None:
            if not self._prompt_seen:
                self._prompt_seen = True
                return
            for token in value.flatten().tolist():
                # Beside those before it: alone, a token loses the space that it begins with.
                said = tokenizer.decode(self._tokens)
                self._tokens.append(token)
                self._pieces.put(tokenizer.decode(self._tokens)[len(said) :])

        def end(self) -> None:
            self._pieces.put(None)

        def __iter__(self) -> Iterator[str]:
            return iter(self._pieces.get, None)

    return Pieces()


def _event(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    event = {"object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    return b"data: " + json.dumps(event | {"choices": choices, "usage": usage}).encode() + b"\n\n"


def build(service: PeftService) -> Any:
    """Return the ASGI application of the service."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def chat(request: Request) -> Response:
        return StreamingResponse(service.answer(await request.json()), media_type="text/event-stream")

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": service.models()})

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [Route("/v1/models", models), Route("/health", health)]
    return Starlette(routes=[*routes, Route("/v1/chat/completions", chat, methods=["POST"])])


def main(given: Sequence[str] | None = None) -> None:
    """Load the base, and run the HTTP server of the service."""
    import uvicorn

    parser = argparse.ArgumentParser(
        description="Serve a model with transformers and PEFT; each request loads its adapter."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("adapters", nargs="*", metavar="NAME=PATH")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument(
        "--dtype",
        default="float32",
        help="number format of the weights (default: float32)",
    )
    arguments = parser.parse_args(given)
    adapters = {name: Path(path) for name, _, path in (text.partition("=") for text in arguments.adapters)}
    service = PeftService(arguments.model, adapters, arguments.dtype)
    uvicorn.run(build(service), host="127.0.0.1", port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
