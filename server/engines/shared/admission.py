"""Admits requests to an engine up to its limits. Keeps for each request its place in the queue and its
adapters until it ends.
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
    """Admits requests to an engine, and releases their queue places and adapters when they end.

    At most `at_once` requests run together, and `queue` more may wait; both are divided fairly between
    clients. `end` is called with the stream of an answer that must end early. Use it on the event loop only.
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
        """Return the stream of the running or waiting request with this id; None if there is no such
        request.
        """
        found = self._live.get(request_id)
        return found[0] if found is not None else None

    def check_room(self, request: GenerationRequest) -> None:
        """Raise `EngineBusyError` if `request` has not reserved a place in the queue and there is no room for
        it.
        """
        if self.places.find(request.reservation) is None:
            self.places.check(request.fair_share)

    def admit(self, work: RequestWork, *, probe: bool = False) -> DeltaStream:
        """Accept the request in `work`, and return the stream of its answer.

        `probe` marks the engine's own test of an adapter: it needs no free place, and the adapter need not be
        available to other requests yet. Raises `AdapterNotLoadedError`, `EngineBusyError`, or `ValueError` if
        the request's id is in use.
        """
        request = work.request
        if request.request_id in self._live:
            raise ValueError(f"request_id {request.request_id!r} belongs to a live request; use a unique id")
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
        """Release the queue place and the adapters of a stream's request. Return False if they were released
        before.
        """
        request, began = stream.work.request, stream.work.scheduled
        found = self._live.get(request.request_id)
        if found is None or found[0] is not stream:
            return False
        del self._live[request.request_id]
        self.places.leave(found[1], stream, time.perf_counter() - began if began is not None else None)
        self._residents.give_back(request.adapter_mix)
        return True

    def fail_all(self, error: EngineError) -> None:
        """End the answer of every running or waiting request with `error`, after the tokens that have
        arrived.
        """
        for stream in self:
            stream.fail(error)

    def _reservation(self, request: GenerationRequest, probe: bool) -> Reservation[DeltaStream]:
        if probe:
            return self.places.hold(request.fair_share)
        return self.places.find(request.reservation) or self.places.reserve(request.fair_share)

    def _drop(self, stream: DeltaStream) -> None:
        log.warning(
            "request %s is ended with the error answer_not_read, because its client has stopped reading the "
            "answer",
            stream.work.request.request_id,
        )
        stream.drop()
        self._end(stream)

    def _withdraw(self, stream: DeltaStream, error: EngineError) -> None:
        stream.fail(error)
        self._end(stream)


def check_fits(request: GenerationRequest, info: EngineInfo, kv_tokens: int) -> None:
    """Check that the engine can compute `request`.

    Raises `UnsupportedRequestError` if a prompt token is outside the base's vocabulary, and
    `ContextExceededError` if prompt and answer exceed the base's context or `kv_tokens`, the KV cache's size
    in tokens.
    """
    prompt, wanted = len(request.prompt), request.sampling.max_tokens
    total = prompt + wanted
    if prompt and not 0 <= min(request.prompt) <= max(request.prompt) < info.vocabulary:
        raise UnsupportedRequestError(
            f"the prompt has a token id outside the base's vocabulary of {info.vocabulary} tokens; "
            "use the base's own tokenizer",
            "prompt",
        )
    if not prompt or total > info.context:
        raise ContextExceededError(describe_context(info.context, prompt, wanted), "max_tokens")
    if total > kv_tokens:
        message = describe_context(kv_tokens, prompt, wanted)
        raise ContextExceededError(
            f"{message} The size of the KV cache sets this limit; an operator can raise kv_cache_memory.",
            "max_tokens",
        )


def probe_of(digest: str, bos_id: int | None) -> GenerationRequest:
    """Return a request that tests the adapter `digest`: it generates one token with this adapter alone, and
    shares no prefix cache with other requests.
    """
    return GenerationRequest(
        request_id=f"{PROBE}-{digest}",
        prompt=(bos_id if bos_id is not None else 0,),
        sampling=Sampling(max_tokens=1, temperature=0.0),
        adapter_mix=((digest, 1.0),),
        cache_salt=PROBE,
        share=digest,
    )
