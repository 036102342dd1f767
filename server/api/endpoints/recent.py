"""Answers `GET /metrics/recent` with samples of the server's metrics from the last 15 minutes."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from server.api.endpoints.context import reply
from server.errors import bad_field
from server.metrics.samples import KEPT, SECONDS, Samples

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Recent:
    """Handler of `GET /metrics/recent`. Like `/metrics`, this endpoint shows figures of all tenants, so both
    need the same key.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def samples(self, request: Request) -> Response:
        """Answer with the samples after the number in the query parameter `since`, oldest first. Default: all
        samples.
        """
        since = request.query_params.get("since", "0")
        if not _NUMBER.fullmatch(since):
            raise bad_field(
                "since",
                f"since is {since[:40]!r}, not a number; send the number of the last sample that you have.",
                code="invalid_value",
            )
        samples = self._samples.since(int(since))
        return reply({"object": "list", "seconds": SECONDS, "kept": KEPT, "data": samples})
