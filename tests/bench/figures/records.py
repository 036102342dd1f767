"""Records by hand."""

from __future__ import annotations

from typing import Any

from bench.load.records import RequestRecord


def record(number: int = 1, **fields: Any) -> RequestRecord:
    """A completed request: sent at 0, first token at 0.1 s, one every 10 ms, four in all."""
    arrivals = (0.1, 0.11, 0.12, 0.13)
    plain: dict[str, Any] = {
        "number": number,
        "model": "sv",
        "language": "sv",
        "expects": "sv",
        "outcome": "completed",
        "status": 200,
        "intended": 0.0,
        "sent": 0.0,
        "end": 0.14,
        "arrivals": arrivals,
        "events": (1,) * len(fields.get("arrivals", arrivals)),
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "words": 3,
        "answered_by": "sv@v1.0",
    }
    return RequestRecord(**(plain | fields))
