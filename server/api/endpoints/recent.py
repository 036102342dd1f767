"""Answers `GET /metrics/recent` with samples of the last 15 minutes."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import reply
from server.errors import bad_field
from server.metrics.samples import KEPT, SECONDS, Samples

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Recent:
    """The route. Like /metrics it shows all tenants, so it needs the same key."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def samples(self, request: Request) -> Response:
        """The samples after number `since`, oldest first. Default: all."""
        since = request.query_params.get("since", "0")
        if not _NUMBER.fullmatch(since):
            message = (
                f"since is {since[:40]!r}, which is not a number; use the number of the last sample you have."
            )
            raise bad_field("since", message, code="invalid_value")
        samples = self._samples.since(int(since))
        return reply({"object": "list", "seconds": SECONDS, "kept": KEPT, "data": samples})
