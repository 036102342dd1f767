"""An engine that sends its requests to replicas on a Ray cluster. Admits requests, chooses replicas, and
retries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from adapters.lora.manifest import Adapter
from server.engines.ray.answer import RemoteAnswer
from server.engines.ray.calls import (
    Description,
    EngineCall,
    ReplicaCall,
    ReplicaLostError,
    SentFailure,
    decode_frame,
    restore_failure,
)
from server.engines.ray.fleet import Fleet
from server.engines.ray.placement import ReplicaChoice, ReplicaPlacement, prefix_keys
from server.engines.ray.replicas import Replicas
from server.engines.shared.places import Places, Reservation
from server.engines.shared.residents import Residents
from server.engines.shared.unread import Unread
from server.errors import EngineBusyError, EngineDeadError, EngineError, NoSlotError
from server.metrics.engine_state import EngineState
from server.request import AdapterMix, Delta, EmbeddingRequest, GenerationRequest

MOST_TRIES = 4
"""Maximum number of replicas that are tried for a request. If all of them are lost, the request fails."""
BEGIN_SECONDS = 30.0
"""Seconds within which a replica must confirm that it has accepted a request. The request may then still wait
in the replica's queue.
"""
LOST = "the engine's replica that was working on this request was lost; send the request again"

log = logging.getLogger("oneseek.ray")


class RemoteEngine:
    """An engine that serves one base on several replicas of a Ray cluster.

    A loaded adapter is in memory on at least one replica, and on every replica that had a free slot when the
    adapter was loaded. Other replicas load the adapter for the first request that needs it. If a replica is
    lost before the client has received any of the answer, another replica generates the answer.
    """

    def __init__(
        self, replicas: Replicas, described: Description, *, most_replicas: int, max_queue: int
    ) -> None:
        self._replicas = replicas
        self._at_once = described.at_once
        most = described.info.max_adapters * most_replicas
        self.info = replace(described.info, max_adapters=most)
        self.placement = ReplicaPlacement(slack=max(2, described.at_once // 4))
        self.fleet = Fleet(replicas, self._resized, self.placement.forget)
        self.residents = Residents(most, self._bring_in, self._drop)
        self.places = Places[RemoteAnswer](
            at_once=described.at_once, queue=max_queue, withdraw=self._withdraw
        )
        self.unread = Unread[RemoteAnswer](self._drop_unread)
        self.retried = 0
        """Number of requests that began again on another replica."""
        self._adapters: dict[str, Adapter] = {}
        self._live: dict[str, tuple[RemoteAnswer, Reservation[RemoteAnswer]]] = {}
        self._tasks: dict[RemoteAnswer, asyncio.Task[None]] = {}
        self._dead: str | None = None

    async def start(self) -> None:
        """Return once a replica of the engine takes requests."""
        await self.fleet.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer piece by piece. See `Engine.generate`."""
        answer = self._admit(request)
        try:
            while not answer.done:
                yield await answer.next()
        finally:
            self._release(answer)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the embedding vector of a text, of unit length. See `Engine.embed`."""
        self._check_alive()
        self.residents.take(request.adapter_mix)
        try:
            for _ in range(MOST_TRIES):
                choice = self._choose((), request.adapter_mix)
                self.fleet.sent(choice.first)
                try:
                    found = await self._replicas.embed(self._call(request, choice))
                except ReplicaLostError:
                    self.fleet.suspect(choice.first)
                    continue
                finally:
                    self.fleet.ended(choice.first)
                if isinstance(found, SentFailure):
                    raise restore_failure(found)
                return found
            raise EngineDeadError(LOST)
        finally:
            self.residents.give_back(request.adapter_mix)

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into a slot of the engine, and test it. See `Engine.load`."""
        self._check_alive()
        await self.residents.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Unload the adapter `digest` from every replica once no request uses it. See `Engine.unload`.

        `keep` is ignored: replicas decide themselves whether to keep the weights in host memory.
        """
        self._check_alive()
        await self.residents.unload(digest)
        if digest in self.fleet.resident():  # loaded again for a late request
            await self._drop(digest)

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. See `Engine.state`.

        Requests are counted in this process; memory is the sum over the replicas.
        """
        if self._dead is not None:
            return EngineState(alive=False, progress=0.0)
        running, waiting = Counter[str](), Counter[str]()
        for answer, _ in list(self._live.values()):
            work = answer.work
            (waiting if work.scheduled is None else running)[work.request.share] += 1
        state = self.fleet.state()
        leaving = {*self.residents.held} - self.residents.open
        resident = {digest: tier for digest, tier in state.resident.items() if digest not in leaving}
        unread = self.unread.dropped
        return replace(state, running=running, waiting=waiting, unread=unread, resident=resident)

    def fail(self, reason: str) -> None:
        """Mark the engine as dead, and end all its answers. See `Engine.fail`."""
        if self._dead is None:
            self._dead = reason
            for answer, _ in list(self._live.values()):
                answer.fail(EngineDeadError(reason))
            self.residents.abandon()

    async def close(self) -> None:
        """Abort running requests, and release everything that the engine holds in this process. See
        `Engine.close`. The replicas keep running, since Ray manages them.
        """
        self.fail("the answer was ended, because the server is shutting down")
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.fleet.close()

    # Requests.

    def _admit(self, request: GenerationRequest) -> RemoteAnswer:
        self._check_alive()
        if request.request_id in self._live:
            raise ValueError(f"request_id {request.request_id!r} belongs to a live request; use a unique id")
        self.residents.take(request.adapter_mix)
        answer = RemoteAnswer(request, self.unread)
        try:
            places = self.places
            reservation = places.find(request.reservation) or places.reserve(request.fair_share)
            places.claim(reservation, answer)
        except BaseException:
            self.residents.give_back(request.adapter_mix)
            raise
        self._live[request.request_id] = answer, reservation
        self._tasks[answer] = asyncio.create_task(self._follow(answer))
        return answer

    def _release(self, answer: RemoteAnswer) -> None:
        """End the work on `answer`, even if the answer is not complete. Idempotent."""
        answer.discard()
        task = self._tasks.pop(answer, None)
        if task is not None:
            task.cancel()
        self._leave(answer)

    def _leave(self, answer: RemoteAnswer) -> None:
        """Release the queue place and the adapters of the answer's request. Idempotent."""
        request = answer.work.request
        found = self._live.get(request.request_id)
        if found is None or found[0] is not answer:
            return
        del self._live[request.request_id]
        began = answer.work.scheduled
        lasted = None if began is None else time.perf_counter() - began
        self.places.leave(found[1], answer, lasted)
        self.residents.give_back(request.adapter_mix)

    async def _follow(self, answer: RemoteAnswer) -> None:
        """Let a replica generate `answer`. If the replica is lost, retry on another one, unless the client
        has already received a part of the answer.
        """
        request = answer.work.request
        keys = prefix_keys(request)
        error: EngineError = EngineDeadError(LOST)
        for _ in range(MOST_TRIES):
            choice = self._choose(keys, request.adapter_mix)
            try:
                await self._read(answer, self._call(request, choice), keys, choice)
                self._leave(answer)  # before the client reads it: slow clients must not block others
                return
            except (ReplicaLostError, EngineDeadError) as lost:
                log.warning(
                    "request %s was interrupted because engine replica %s failed; "
                    "another replica takes the request unless a part of its answer was already sent: %s",
                    request.request_id,
                    answer.replica,
                    lost,
                )
                self.fleet.suspect(answer.replica)
                if answer.finished or not answer.begin_again():
                    break
                self.retried += 1
            except EngineError as refused:
                error = refused
                break
            except Exception:
                log.exception(
                    "request %s failed, because reading its answer from a replica raised an unexpected error",
                    request.request_id,
                )
                error = EngineError("the engine failed at this request; the server's log has the reason")
                break
        answer.fail(error)
        self._leave(answer)

    async def _read(
        self, answer: RemoteAnswer, call: EngineCall, keys: tuple[int, ...], choice: ReplicaChoice
    ) -> None:
        """Read `answer` from one replica until it is complete.

        Raises `ReplicaLostError` if the replica is gone, or the error that the replica sent.
        """
        placed = ""
        answer.replica = choice.first
        self.fleet.sent(choice.first)
        try:
            async with (
                asyncio.timeout(BEGIN_SECONDS) as limit,
                aclosing(self._replicas.stream(call)) as frames,
            ):
                async for data in frames:
                    frame = decode_frame(data)
                    if not placed:
                        limit.reschedule(None)
                        placed = answer.replica = frame.replica
                        self.fleet.began(placed, choice.first)
                        self.placement.record(keys, placed, choice)
                    for delta in frame.deltas:
                        answer.feed(delta)
                    if frame.failure is not None:
                        raise restore_failure(frame.failure)
        except TimeoutError:
            raise ReplicaLostError(
                f"no replica of the engine accepted the request within {BEGIN_SECONDS:g} seconds"
            ) from None
        finally:
            self.fleet.ended(placed or choice.first)
        if not answer.finished:
            raise ReplicaLostError("the engine replica closed its stream before it had sent the whole answer")

    def _choose(self, keys: tuple[int, ...], mix: AdapterMix) -> ReplicaChoice:
        return self.placement.choose(keys, [digest for digest, _ in mix], self.fleet.places())

    def _call(self, request: GenerationRequest | EmbeddingRequest, choice: ReplicaChoice) -> EngineCall:
        adapters = tuple(self._adapters[digest] for digest, _ in request.adapter_mix)
        # The reservation is one of the ingress's queue, unknown to the replica.
        sent = replace(request, reservation="") if isinstance(request, GenerationRequest) else request
        return EngineCall(request=sent, adapters=adapters, ranked=choice.ranked)

    def _withdraw(self, answer: RemoteAnswer, error: EngineBusyError) -> None:
        answer.fail(error)
        self._release(answer)

    def _drop_unread(self, answer: RemoteAnswer) -> None:
        log.warning(
            "request %s is ended with the error answer_not_read, because its client has stopped reading the "
            "answer",
            answer.work.request.request_id,
        )
        answer.drop()
        self._release(answer)

    def _resized(self, replicas: int) -> None:
        self.places.resize(self._at_once * max(1, replicas))

    # Adapters.

    async def _bring_in(self, adapter: Adapter) -> None:
        names = sorted(self._replicas.known)
        if not names:
            raise EngineDeadError("no replica of the engine runs, so no adapter can be loaded; retry later")
        calls = [ReplicaCall(replica=name, adapter=adapter) for name in names]
        found = await self._ask_all([self._replicas.load(call) for call in calls])
        if not any(one is True for one in found):
            refusals = [one for one in found if isinstance(one, SentFailure)]
            if refusals:
                raise restore_failure(refusals[0])
            choice = self.placement.choose((), (), self.fleet.places())
            call = ReplicaCall(replica=choice.ranked[0], adapter=adapter, make_room=True)
            (made,) = await self._ask_all([self._replicas.load(call)])
            if isinstance(made, SentFailure):
                raise restore_failure(made)
            if made is not True:
                raise NoSlotError(
                    f"{adapter.full_name}: no replica of the engine has a free adapter slot; "
                    "unload an adapter first"
                )
        self._adapters[adapter.digest] = adapter
        await self.fleet.refresh()

    def _drop(self, digest: str) -> asyncio.Future[None]:
        self._adapters.pop(digest, None)
        calls = [ReplicaCall(replica=name, digest=digest) for name in sorted(self._replicas.known)]

        async def drop() -> None:
            self._check_alive()
            await self._ask_all([self._replicas.unload(call) for call in calls])
            await self.fleet.refresh()

        return asyncio.create_task(drop())

    async def _ask_all(
        self, questions: Sequence[Coroutine[Any, Any, bool | SentFailure | None]]
    ) -> list[Any]:
        """Wait for calls to all replicas, and return the results; None for a replica that is lost."""
        found = await asyncio.gather(*questions, return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException) and not isinstance(one, ReplicaLostError):
                raise one
        return [None if isinstance(one, BaseException) else one for one in found]

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(self._dead)
