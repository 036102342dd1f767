"""Refuses requests early if the queue is full for them, before they are parsed or routed.

There are three checks, each much cheaper than the work that follows it. The first check reads only the
headers. The second reads the names in the body. The third comes once the request is routed, and reserves the
request's places in the queue.

A share is all requests with the same API key and adapter. So a key that uses several adapters has a share for
each adapter; a blend counts as its adapter with the largest weight. A request for a name that is not served
never reaches the queue. If the headers do not determine the adapter, the request is refused only if every
share that it could belong to has used up its fair part of the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from routing.route import MODEL, UnknownNameError, named_choice
from routing.selection import BASE, HEADER, SelectionError
from server.errors import EngineBusyError
from server.exchange import Exchange, Held
from server.live.runtime import Runtime
from server.request import Share

MOST_ASKED = 64
"""Maximum number of adapters with which the check of the headers still tries every adapter, if the headers
name none. With more adapters, the request passes this check.
"""


class Gate:
    """Checks and reserves places in the queue of one base's engine."""

    def __init__(self, runtime: Runtime) -> None:
        self.places = runtime.engine.places
        self._served = runtime.served
        self._metrics = runtime.metrics

    def check_headers(self, exchange: Exchange) -> None:
        """Raise `EngineBusyError` if the headers alone show that the queue has no place for the request."""
        if not self.places.full:
            return
        with _found_at("headers"):
            if b"x-oneseek-adapter" in exchange.headers:
                self._check_named(exchange, None, 1)
            else:
                self._check_every(exchange.tenant)

    def check_body(self, exchange: Exchange, model: object, count: int) -> None:
        """Raise `EngineBusyError` if the queue has no place for the API key with the adapter that the header
        `X-OneSeek-Adapter` or the field `model` names.
        """
        with _found_at("body"):
            self._check_named(exchange, model, count)

    def hold(self, exchange: Exchange, digest: str, count: int) -> None:
        """Reserve `count` places in the queue for the adapter until the request ends. Raises
        `EngineBusyError`.
        """
        with _found_at("share"):
            exchange.held = self.places.reserve(Share(exchange.tenant, digest), count)

    def _check_named(self, exchange: Exchange, model: object, count: int) -> None:
        named = self._named(exchange, model)
        if named is None:
            return
        adapter = named if isinstance(named, Adapter) else None
        try:
            self.places.check(Share(exchange.tenant, adapter.digest if adapter else ""), count)
        except EngineBusyError:
            exchange.adapter, exchange.version = (adapter.alias, adapter.version) if adapter else (BASE, "")
            exchange.receipt["X-OneSeek-Adapter"] = adapter.full_name if adapter else BASE
            self._metrics.chosen(exchange)
            raise

    def _check_every(self, tenant: str) -> None:
        adapters = self._served.snapshot.adapters()
        if len(adapters) > MOST_ASKED:
            return
        refusal: EngineBusyError | None = None
        for digest in {"", *(adapter.digest for adapter in adapters)}:
            try:
                self.places.check(Share(tenant, digest))
            except EngineBusyError as error:
                refusal = error
            else:
                return
        if refusal is not None:
            raise refusal

    def _named(self, exchange: Exchange, model: object) -> Adapter | Literal["base"] | None:
        """Return the adapter that the header `X-OneSeek-Adapter` or the field `model` names; for a blend, the
        adapter with the largest weight. None if routing decides.
        """
        names, header = self._served.snapshot, exchange.headers.get(b"x-oneseek-adapter")
        try:
            if header is not None:
                chosen = named_choice(header, HEADER, names)
            else:
                chosen = named_choice(model, MODEL, names) if isinstance(model, str) else None
            if not chosen:
                return BASE if chosen == () else None
            name, _ = max(chosen, key=lambda part: abs(part[1]))
            return None if names.divided_alias(name) is not None else names.resolve(name)
        except (SelectionError, UnknownNameError, UnknownAdapterError):
            return None


@dataclass(frozen=True, slots=True)
class HeldTogether:
    """The places that one request has reserved in the queues of several engines, or for several adapters."""

    parts: Sequence[Held]
    name: str = ""

    @property
    def open(self) -> bool:
        """True if any of the places is still reserved. See `Held.open`."""
        return any(part.open for part in self.parts)

    def begin(self) -> None:
        """Count the request as running instead of waiting, in every queue. See `Held.begin`."""
        for part in self.parts:
            part.begin()

    def close(self) -> None:
        """Give back the request's places in all queues. See `Held.close`."""
        for part in self.parts:
            part.close()


def hold_together(exchange: Exchange, wanted: Mapping[Gate, Sequence[str]]) -> dict[Gate, dict[str, Held]]:
    """Reserve a place in each base's queue for each adapter's digest until the request ends: all places or
    none.

    Returns the reserved places of each base, by digest. Raises `EngineBusyError`.
    """
    counts = {
        gate: Counter(Share(exchange.tenant, digest) for digest in digests)
        for gate, digests in wanted.items()
    }
    with _found_at("share"):
        for gate, shares in counts.items():
            gate.places.check_all(shares)
        held = {gate: gate.places.reserve_all(shares) for gate, shares in counts.items()}
    exchange.held = HeldTogether([part for parts in held.values() for part in parts.values()])
    return {gate: {share.adapter: part for share, part in parts.items()} for gate, parts in held.items()}


@contextmanager
def _found_at(gate: str) -> Generator[None]:
    try:
        yield
    except EngineBusyError as error:
        error.gate = gate
        raise
