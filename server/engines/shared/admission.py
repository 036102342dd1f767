"""The requests that are live in an engine: how many there may be, and what each holds until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

from server.engines.shared.residents import Residents
from server.engines.shared.stream import DeltaStream, RequestWork
from server.errors import EngineBusyError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import EngineInfo
from server.request import GenerationRequest, Sampling
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer

PROBE = "adapter-probe"

_LEARNING = 0.05
"""Share of the newest request in the mean time that requests run."""


class Admission:
    """Admits requests and gives back what they hold. Used on the event loop alone.

    `at_once` requests run together, and at most `most` are live, those that wait included.
    """

    def __init__(self, tokenizer: Tokenizer, residents: Residents, *, at_once: int, most: int) -> None:
        self._tokenizer = tokenizer
        self._residents = residents
        self._at_once = at_once
        self._most = most
        self._live: dict[str, DeltaStream] = {}
        self._seconds_per_request = 1.0

    def __iter__(self) -> Iterator[DeltaStream]:
        return iter(list(self._live.values()))

    def get(self, request_id: str) -> DeltaStream | None:
        """The live stream of that name."""
        return self._live.get(request_id)

    def check_room(self) -> None:
        """Raise `EngineBusyError` where no more requests are taken."""
        if len(self._live) >= self._most:
            raise EngineBusyError(
                f"{len(self._live)} requests are running or waiting, the most this server takes",
                retry_after=self._retry_after(),
            )

    def admit(self, work: RequestWork, *, probe: bool = False) -> DeltaStream:
        """A stream for `work`; a probe may name an adapter that is not open yet.

        Raises `AdapterNotLoadedError`, and `ValueError` for an id in use.
        """
        request = work.request
        if request.request_id in self._live:
            raise ValueError(f"request_id {request.request_id!r} is in use")
        self._residents.take(request.adapter_mix, probe=probe)
        sampling, before = request.sampling, request.prompt if request.continues else ()
        text = TextStream(
            self._tokenizer, sampling.stop, sampling.min_tokens, prompt=before, marks=sampling.marks
        )
        stream = self._live[request.request_id] = DeltaStream(work, text)
        return stream

    def release(self, stream: DeltaStream) -> bool:
        """Give back a stream's place and adapters; False where that was done before."""
        request, began = stream.work.request, stream.work.scheduled
        if self._live.get(request.request_id) is not stream:
            return False
        del self._live[request.request_id]
        if began is not None:
            lasted = time.perf_counter() - began
            self._seconds_per_request += _LEARNING * (lasted - self._seconds_per_request)
        self._residents.give_back(request.adapter_mix)
        return True

    def fail_all(self, error: EngineError) -> None:
        """End every live stream with `error`, after what has arrived."""
        for stream in self:
            stream.fail(error)

    def _retry_after(self) -> float:
        """Seconds until the queue has been worked off, from how long requests ran lately."""
        return max(1.0, self._seconds_per_request * len(self._live) / self._at_once)


def check_fits(request: GenerationRequest, info: EngineInfo, kv_tokens: int) -> None:
    """Raise `UnsupportedRequestError` for tokens unknown to the base, or more than context or memory hold."""
    prompt, wanted = len(request.prompt), request.sampling.max_tokens
    total = prompt + wanted
    if prompt and not 0 <= min(request.prompt) <= max(request.prompt) < info.vocabulary:
        raise UnsupportedRequestError(
            f"the prompt has a token outside the base's vocabulary of {info.vocabulary}", "prompt"
        )
    if not prompt or total > info.context:
        raise UnsupportedRequestError(
            f"{prompt} prompt tokens and {wanted} to generate do not fit the context of {info.context}",
            "max_tokens",
        )
    if total > kv_tokens:
        raise UnsupportedRequestError(
            f"{total} tokens do not fit the KV cache of {kv_tokens} tokens; "
            "ask for fewer, or give the server more with --kv-cache-memory",
            "max_tokens",
        )


def probe_of(digest: str, bos_id: int | None) -> GenerationRequest:
    """A request for one token with the adapter alone, which no other request shares a cache with."""
    return GenerationRequest(
        request_id=f"{PROBE}-{digest}",
        prompt=(bos_id if bos_id is not None else 0,),
        sampling=Sampling(max_tokens=1, temperature=0.0),
        adapter_mix=((digest, 1.0),),
        cache_salt=PROBE,
        share=digest,
    )
