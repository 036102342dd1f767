"""Admits requests to an engine up to its limit, and tracks the place in the queue and the adapters that each
one uses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from server.engines.shared.places import Places, Reservation
from server.engines.shared.residents import Residents
from server.engines.shared.stream import DeltaStream, RequestWork
from server.engines.shared.unread import Unread
from server.errors import ContextExceededError, EngineError, UnsupportedRequestError, describe_context
from server.metrics.engine_state import EngineInfo
from server.request import GenerationRequest, Sampling
from server.text.tokenizer import Tokenizer

PROBE = "adapter-probe"

log = logging.getLogger("oneseek.engine")


class Admission:
    """Admits requests, and releases their places and adapters when they end.

    Use it on the event loop only. `at_once` requests run together, and `queue` more may wait. `places`
    divides these fairly between clients. `end` is the engine's function to end a stream early.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        residents: Residents,
        *,
        at_once: int,
        queue: int,
        end: Callable[[DeltaStream], None],
    ) -> None:
        self._tokenizer = tokenizer
        self._residents = residents
        self._end = end
        self._live: dict[str, tuple[DeltaStream, Reservation[DeltaStream]]] = {}
        self.places = Places(at_once=at_once, queue=queue, withdraw=self._withdraw)
        self.unread = Unread(self._drop)

    def __iter__(self) -> Iterator[DeltaStream]:
        return iter([stream for stream, _ in self._live.values()])

    def get(self, request_id: str) -> DeltaStream | None:
        """Return the running or waiting stream with this request id."""
        found = self._live.get(request_id)
        return found[0] if found is not None else None

    def check_room(self, request: GenerationRequest) -> None:
        """Raise `EngineBusyError` if `request` has no place in the queue and cannot get one."""
        if self.places.find(request.reservation) is None:
            self.places.check(request.fair_share)

    def admit(self, work: RequestWork, *, probe: bool = False) -> DeltaStream:
        """Admit `work`, and return its stream.

        With `probe`, this is the engine's own test of an adapter. It needs no free place, and the adapter
        need not be available to other requests yet. Raises `AdapterNotLoadedError`, `EngineBusyError`, and
        `ValueError` for an id in use.
        """
        request = work.request
        if request.request_id in self._live:
            raise ValueError(f"request_id {request.request_id!r} is in use")
        self._residents.take(request.adapter_mix, probe=probe)
        stream = DeltaStream(work, self._tokenizer, self.unread)
        try:
            reservation = self._reservation(request, probe)
            self.places.claim(reservation, stream)
        except BaseException:
            self._residents.give_back(request.adapter_mix)
            raise
        self._live[request.request_id] = stream, reservation
        return stream

    def release(self, stream: DeltaStream) -> bool:
        """Release a stream's place and adapters. Returns False if that was done before."""
        request, began = stream.work.request, stream.work.scheduled
        found = self._live.get(request.request_id)
        if found is None or found[0] is not stream:
            return False
        del self._live[request.request_id]
        self.places.leave(found[1], stream, time.perf_counter() - began if began is not None else None)
        self._residents.give_back(request.adapter_mix)
        return True

    def fail_all(self, error: EngineError) -> None:
        """End every live stream with `error`, after its pending events."""
        for stream in self:
            stream.fail(error)

    def _reservation(self, request: GenerationRequest, probe: bool) -> Reservation[DeltaStream]:
        if probe:
            return self.places.hold(request.fair_share)
        return self.places.find(request.reservation) or self.places.reserve(request.fair_share)

    def _drop(self, stream: DeltaStream) -> None:
        log.warning(
            "ending request %s: its client has stopped reading the answer", stream.work.request.request_id
        )
        stream.drop()
        self._end(stream)

    def _withdraw(self, stream: DeltaStream, error: EngineError) -> None:
        stream.fail(error)
        self._end(stream)


def check_fits(request: GenerationRequest, info: EngineInfo, kv_tokens: int) -> None:
    """Raise `UnsupportedRequestError` if a token is unknown to the base, and `ContextExceededError` if the
    request is longer than the context or than the KV memory.
    """
    prompt, wanted = len(request.prompt), request.sampling.max_tokens
    total = prompt + wanted
    if prompt and not 0 <= min(request.prompt) <= max(request.prompt) < info.vocabulary:
        raise UnsupportedRequestError(
            f"the prompt has a token id outside the base's vocabulary of {info.vocabulary} tokens", "prompt"
        )
    if not prompt or total > info.context:
        raise ContextExceededError(describe_context(info.context, prompt, wanted), "max_tokens")
    if total > kv_tokens:
        message = describe_context(kv_tokens, prompt, wanted)
        raise ContextExceededError(
            f"{message} The KV cache is the limit here; an operator can raise kv_cache_memory.", "max_tokens"
        )


def probe_of(digest: str, bos_id: int | None) -> GenerationRequest:
    """Return a request that tests an adapter: it generates one token, with no other adapter and no shared
    prefix cache.
    """
    return GenerationRequest(
        request_id=f"{PROBE}-{digest}",
        prompt=(bos_id if bos_id is not None else 0,),
        sampling=Sampling(max_tokens=1, temperature=0.0),
        adapter_mix=((digest, 1.0),),
        cache_salt=PROBE,
        share=digest,
    )
