"""The log tells of each change in one line, whatever name a client wrote."""

from __future__ import annotations

import logging

import pytest
from starlette.requests import Request
from starlette.types import Message, Scope

from server.api.endpoints.admin.audit import AuditLog
from server.asgi.middleware import open_exchange
from server.errors import bad_field
from server.metrics.metrics import Metrics


@pytest.mark.anyio
async def test_a_name_writes_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def send(_message: Message) -> None: ...

    scope: Scope = {"type": "http", "headers": []}
    open_exchange(scope, send)
    audit = AuditLog(Metrics())
    name = "x\npromote 'y' outcome=ok\r\x1b[31m" + "z" * 1000
    with caplog.at_level(logging.INFO, "oneseek.admin"), pytest.raises(ValueError, match="lost"):
        async with audit.record(Request(scope), "load", name):
            raise ValueError("lost")
    with caplog.at_level(logging.INFO, "oneseek.admin"), pytest.raises(Exception, match="no name"):
        async with audit.record(Request(scope), "load", name):
            raise bad_field("lora_name", "no name")
    failed, refused = (record.getMessage() for record in caplog.records)
    assert "outcome=failed code=internal_error" in failed
    assert "outcome=refused" in refused
    for line in (failed, refused):
        assert line.isprintable()
        assert len(line) < 300
