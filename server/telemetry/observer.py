"""Observers of requests, which are called when a request arrives and when it has been answered."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from starlette.types import Scope

from server.exchange import Exchange

log = logging.getLogger("oneseek.telemetry")


class RequestObserver(Protocol):
    """An observer of requests. It is called on the event loop, so it must neither wait nor work for long."""

    @property
    def looks_early(self) -> bool:
        """True if the observer is also called when requests arrive."""
        ...

    def begin(self, exchange: Exchange, scope: Scope) -> None:
        """Called when a request has arrived, before its body is read. Only called if `looks_early` is
        true.
        """
        ...

    def end(self, exchange: Exchange) -> None:
        """Called when the last byte of the answer was sent, or the client has disconnected."""
        ...

    async def close(self) -> None:
        """Flush pending data. Takes a few seconds at most."""
        ...


def begin_all(observers: Sequence[RequestObserver], exchange: Exchange, scope: Scope) -> None:
    """Call `begin` of each observer. If one fails, that is logged, and the request continues."""
    for observer in observers:
        try:
            observer.begin(exchange, scope)
        except Exception as error:
            log.error(
                "request %s is answered, but its log line or trace may be missing, because starting one of "
                "them failed",
                exchange.request_id,
                exc_info=error,
            )


def end_all(observers: Sequence[RequestObserver], exchange: Exchange) -> None:
    """Call `end` of each observer. If one fails, that is logged, and nothing else happens."""
    for observer in observers:
        try:
            observer.end(exchange)
        except Exception as error:
            log.error(
                "request %s was answered, but its log line or trace may be missing, because writing one of "
                "them failed",
                exchange.request_id,
                exc_info=error,
            )
