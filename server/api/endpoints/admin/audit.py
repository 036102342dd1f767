"""Logs and counts each change of adapters that a client requests over HTTP."""

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
"""Maximum size in bytes of an admin request's body. The setting `max_body` applies if it is smaller."""

log = logging.getLogger("oneseek.admin")


@dataclass(slots=True)
class AuditEntry:
    """One entry of the audit log: a change of adapters, with its outcome."""

    name: str
    """Full name of the adapter; the client's own spelling until the full name is known."""
    digest: str = ""
    outcome: str = "ok"

    def about(self, name: str, digest: str | None = None) -> None:
        """Record the name and digest of the adapter version that was changed."""
        self.name, self.digest = name, digest or ""


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Logs and counts changes of adapters."""

    metrics: Metrics

    @asynccontextmanager
    async def record(self, request: Request, action: str, name: str) -> AsyncGenerator[AuditEntry]:
        """Log and count the change that the `with` block makes, with its client and outcome.

        `action` must come from a fixed set, since it is a metric label.
        """
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
                "admin change: action=%s name=%s%s outcome=%s%s request=%s key=%s seconds=%.3f",
                action,
                format_value(told.name),
                f" digest={told.digest}" if told.digest else "",
                told.outcome,
                why,
                exchange.request_id,
                exchange.tenant[:8],
                time.perf_counter() - began,
            )
