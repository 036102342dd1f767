"""An engine that makes vectors without any weights, so that the way to them is tested alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator

from adapters.lora.manifest import Adapter
from server.engines.shared.places import Places
from server.errors import AdapterNotLoadedError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import EngineInfo, EngineState, Tier
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer
from tests.server.http_server import BASE_DIGEST, CONTEXT

WIDTH = 16
SLOW, BROKEN = 70, 71
"""Tokens at which the engine takes its time, or fails."""


class TokenVectors:
    """An engine that embeds: a token's vector is made of its id, a text's is their sum, a voice shifts it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.info = EngineInfo(
            name="vectors",
            base_digest=BASE_DIGEST,
            context=CONTEXT,
            vocabulary=tokenizer.vocabulary_size,
            blends=False,
            max_adapters=8,
            task="embed",
        )
        self.places = Places(at_once=8, queue=32, withdraw=lambda stream, error: None)
        self.resident: set[str] = set()
        self.running = 0
        self.most = 0
        self.alive = False
        self.pause = 0.0
        self.evicts = False
        self.fails: EngineError | None = None
        """What every text gets from now on."""

    @property
    def residents(self) -> TokenVectors:
        return self

    @property
    def open(self) -> frozenset[str]:
        return frozenset(self.resident)

    @property
    def held(self) -> frozenset[str]:
        return self.open

    def in_use(self, digest: str) -> bool:
        return False

    async def start(self) -> None:
        self.alive = True

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        raise UnsupportedRequestError("this engine embeds", "model")
        yield

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        if self.fails is not None:
            raise self.fails
        if self.evicts:
            self.evicts = False
            self.resident.clear()
        if any(digest not in self.resident for digest, _ in request.adapter_mix):
            raise AdapterNotLoadedError("not resident")
        width = request.dimensions or WIDTH
        if width > WIDTH:
            raise UnsupportedRequestError(f"dimensions is {width}; the base has {WIDTH}", "dimensions")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(60 if SLOW in request.prompt and self.pause else self.pause)
            if BROKEN in request.prompt:
                raise EngineError("this text broke it")
            return vector(request.prompt, request.adapter_mix[0][0] if request.adapter_mix else "", width)
        finally:
            self.running -= 1

    async def load(self, adapter: Adapter) -> None:
        self.resident.add(adapter.digest)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        self.resident.discard(digest)

    def state(self) -> EngineState:
        resident: dict[str, Tier] = dict.fromkeys(self.resident, "device")
        return EngineState(alive=self.alive, progress=0.0, running={"": self.running}, resident=resident)

    def fail(self, reason: str) -> None: ...

    async def close(self) -> None:
        self.alive = False


def vector(tokens: tuple[int, ...], digest: str = "", width: int = WIDTH) -> tuple[float, ...]:
    shift = sum(digest.encode())
    raw = [sum(math.sin((token + 1) * (i + 1) + shift) for token in tokens) for i in range(width)]
    length = math.hypot(*raw)
    return tuple(value / length for value in raw)
