"""What every change over HTTP leaves behind: one line in the log, and a count."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from adapters.errors import format_value
from server.api.rendering.error_replies import reply_for
from server.exchange import EXCHANGE, Exchange
from server.metrics.metrics import Metrics

MAX_ADMIN_BODY = 64 * 1024
"""Bytes of a body that changes adapters; `max_body` where that is less."""

log = logging.getLogger("oneseek.admin")


@dataclass(slots=True)
class AuditEntry:
    """What a change came to."""

    name: str
    """As the client wrote it, until it is known."""
    digest: str = ""
    outcome: str = "ok"

    def about(self, name: str, digest: str | None = None) -> None:
        """It was this version."""
        self.name, self.digest = name, digest or ""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Tells of changes."""

    metrics: Metrics

    @asynccontextmanager
    async def record(self, request: Request, action: str, name: str) -> AsyncGenerator[AuditEntry]:
        """Log and count what happens inside, who asked, and how it ended. `action` is one of a few words."""
        exchange: Exchange = request.scope[EXCHANGE]
        told, began = AuditEntry(name), time.perf_counter()
        why = ""
        try:
            yield told
        except BaseException as error:
            reply = reply_for(error) if isinstance(error, Exception) else None
            told.outcome = "refused" if reply is not None and reply.status < 500 else "failed"
            why = f" code={reply.code}" if reply is not None else " code=cancelled"
            raise
        finally:
            self.metrics.of(exchange).admin_changes.labels(action, told.outcome).inc()
            log.info(
                "%s %s%s outcome=%s%s request=%s key=%s seconds=%.3f",
                action,
                format_value(told.name),
                f" {told.digest}" if told.digest else "",
                told.outcome,
                why,
                exchange.request_id,
                exchange.tenant[:8],
                time.perf_counter() - began,
            )
