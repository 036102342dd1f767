"""Who is let in: whether the queue has a place for a request, asked as early as its share can be known.

Three looks, each cheaper than the work after it: at the headers alone, at the names in the body, and once
the request is routed, when its places are taken. A share is a key and an adapter. So a key that uses
several adapters has a share in each; a blend counts as its heaviest adapter, and a name that is not served
never reaches the queue. What the headers leave open is refused only if every share that could be meant is
beyond its part.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from routing.route import MODEL, UnknownNameError, named_choice
from routing.selection import BASE, HEADER, SelectionError
from server.errors import EngineBusyError
from server.exchange import Exchange
from server.live.runtime import Runtime
from server.request import Share

MOST_ASKED = 64
"""Adapters up to which all shares of a key are looked at if its headers name none."""


class Gate:
    """Looks at the places of one base's engine."""

    def __init__(self, runtime: Runtime) -> None:
        self.places = runtime.engine.places
        self._served = runtime.served
        self._metrics = runtime.metrics

    def check_headers(self, exchange: Exchange) -> None:
        """Raise `EngineBusyError` if the headers are enough to know that there is no place."""
        if not self.places.full:
            return
        with _found_at("headers"):
            if b"x-oneseek-adapter" in exchange.headers:
                self._check_named(exchange, None, 1)
            else:
                self._check_every(exchange.tenant)

    def check_body(self, exchange: Exchange, model: object, count: int) -> None:
        """Raise `EngineBusyError` if header or `model` name whose share it is, and it has no such places."""
        with _found_at("body"):
            self._check_named(exchange, model, count)

    def hold(self, exchange: Exchange, digest: str, count: int) -> None:
        """Hold `count` places until the request ends, for the adapter's share. Raises `EngineBusyError`."""
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
        """Whom header or `model` name outright, of a blend the heaviest; None if something else decides."""
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


@contextmanager
def _found_at(gate: str) -> Generator[None]:
    try:
        yield
    except EngineBusyError as error:
        error.gate = gate
        raise
