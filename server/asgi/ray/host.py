"""The part of OneSeek that runs in a replica on Ray: one engine with its adapters, called by the ingress."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress

from adapters.lora.manifest import Adapter
from server.asgi.compose import SWITCH_SECONDS, Narrator, open_engine
from server.asgi.ray.batching import batch_deltas
from server.config.environment import process_environment
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.base import Engine
from server.engines.kinds import choose_engine
from server.engines.ray.calls import (
    Description,
    EngineCall,
    Frame,
    ReplicaCall,
    ReplicaStatus,
    SentFailure,
    describe_failure,
    encode_frame,
)
from server.engines.suitability import count_gpus
from server.errors import AdapterNotLoadedError, EngineDeadError, EngineError, UnsupportedRequestError
from server.live.catalogue import open_catalogue
from server.live.slots.leases import Lease
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.metrics import Metrics
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer

FRAME_SECONDS = 0.04
"""Minimum seconds between two messages of one answer; tokens in between are sent together."""


class EngineHost:
    """Runs an engine for an ingress in another process. Each call names its adapters; those that are not
    loaded yet are loaded first.
    """

    def __init__(self, replica: str, engine: Engine, residency: Residency, at_once: int) -> None:
        self._replica = replica
        self._engine = engine
        self._residency = residency
        self._at_once = at_once

    async def start(self) -> None:
        """Start the engine, then load all active adapters into its adapter slots. If there are too few slots,
        load pinned adapters first, then those of languages, then those that the settings list.
        """
        await self._engine.start()
        await self._residency.load_first()

    async def close(self) -> None:
        """Stop the replica's engine."""
        self._residency.close()
        await self._engine.close()

    def describe(self) -> Description:
        """Return the engine's properties, which are the same for all replicas. See `ReplicaHost.describe`."""
        return Description(info=self._engine.info, at_once=self._at_once)

    def status(self) -> ReplicaStatus:
        """Return this replica's state. See `ReplicaHost.status`."""
        return ReplicaStatus(replica=self._replica, state=self._engine.state())

    def check(self) -> None:
        """Raise `EngineDeadError` if the engine is dead for good, so that this replica is replaced."""
        state = self._engine.state()
        if not (state.alive or state.restarting):
            raise EngineDeadError("the engine of this replica has died; Ray replaces the replica")

    async def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Run a generation, and yield its answer as encoded frames. See `ReplicaHost.stream`."""
        yield encode_frame(Frame(self._replica))
        try:
            async with aclosing(batch_deltas(self._deltas(call), FRAME_SECONDS)) as batches:
                async for deltas in batches:
                    yield encode_frame(Frame(self._replica, deltas))
        except EngineError as error:
            yield encode_frame(Frame(self._replica, failure=describe_failure(error)))

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Return the embedding of a text. See `ReplicaHost.embed`."""
        request = call.request
        assert isinstance(request, EmbeddingRequest)
        try:
            lease = await self._acquire(call.adapters)
            try:
                return await self._engine.embed(request)
            finally:
                lease.close()
        except EngineError as error:
            return describe_failure(error)

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into this replica. See `ReplicaHost.load`."""
        assert call.adapter is not None
        residents, most = self._engine.residents, self._engine.info.max_adapters
        full = len(residents.held) >= most and call.adapter.digest not in residents.held
        if full and not call.make_room:
            return False
        try:
            await self._residency.ensure(call.adapter)
        except EngineError as error:
            return describe_failure(error)
        return True

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter from this replica. See `ReplicaHost.unload`."""
        with suppress(EngineError):
            await self._engine.unload(call.digest)

    async def _deltas(self, call: EngineCall) -> AsyncGenerator[Delta, None]:
        request = call.request
        assert isinstance(request, GenerationRequest)
        source, first = await self._begin(request, call.adapters)
        async with aclosing(source):
            yield first
            async for delta in source:
                yield delta

    async def _begin(
        self, request: GenerationRequest, adapters: Sequence[Adapter]
    ) -> tuple[AsyncGenerator[Delta, None], Delta]:
        """Start a generation. Returns the iterator of its deltas, and the first delta. Retries once if an
        adapter was evicted meanwhile.
        """
        for last in (False, True):
            lease = await self._acquire(adapters)
            source = self._engine.generate(request)
            try:
                return source, await anext(source)
            except AdapterNotLoadedError:
                if last:
                    raise
            except BaseException:
                await source.aclose()
                raise
            finally:
                lease.close()
        raise AssertionError(
            "unreachable: the second attempt to start the generation always returns or raises"
        )

    async def _acquire(self, adapters: Sequence[Adapter]) -> Lease:
        if not adapters:
            return Lease((), lambda _: None)
        most = self._engine.info.max_adapters
        if len(adapters) > most:
            raise UnsupportedRequestError(
                f"A blend of {len(adapters)} adapters needs as many adapter slots, but a replica has {most}. "
                "Use fewer adapters, or raise max_adapters.",
                "model",
            )
        return await self._residency.acquire(adapters)


def check_gpus(settings: Settings, gpus: float, environ: Mapping[str, str]) -> None:
    """Raise `SettingsError` if vLLM would use a GPU that Ray has not reserved for this replica.

    `gpus` is the number of GPUs reserved. Ray hides GPUs from a process only if it has reserved some for that
    process, so without a reservation all replicas of a machine would use its first GPU.
    """
    kind = choose_engine(settings.engine.kind, environ).kind
    if gpus == 0 and kind.divides_gpu and count_gpus(environ):
        raise SettingsError(
            "gpus",
            "the value is 0, but vLLM would use a GPU of this node; set gpus to 1, so that Ray reserves it",
        )


def open_host(settings: Settings, replica: str, gpus: float) -> EngineHost:
    """Open the engine host for the base in `settings`, without starting it. Blocks while an ONNX graph is
    built.

    Raises `SettingsError`, `EngineError` and the errors of opening the catalogue.
    """
    if settings.bases:
        raise SettingsError(
            "bases",
            "an application on Ray serves only one base; remove this setting, and deploy an application for "
            "each base",
        )
    environ = process_environment()
    check_gpus(settings, gpus, environ)
    sys.setswitchinterval(SWITCH_SECONDS)
    metrics, narrator = Metrics(), Narrator(sys.stderr)
    catalogue = open_catalogue(settings)
    tokenizer = Tokenizer.load(catalogue.base.path, tool_parser=settings.named_tool_parser)
    priorities = Priorities(
        catalogue.served, settings.pinned_adapters, catalogue.configured, settings.routing.default
    )
    engine, _ = open_engine(settings, catalogue, tokenizer, metrics, narrator, environ, priorities)
    residency = Residency(engine, metrics, priorities)
    return EngineHost(replica, engine, residency, engine.places.limit - settings.max_queue)
