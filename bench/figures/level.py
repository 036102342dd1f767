"""A service level: the longest acceptable TTFT and inter-token latency, and a check of whether requests keep
to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.load.records import RequestRecord

PERCENTILE = 95


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """The limits of a service level for TTFT and inter-token latency, in milliseconds. A run must keep to
    them at the 95th percentile.
    """

    ttft_ms: float = 500.0
    itl_ms: float = 50.0

    def __post_init__(self) -> None:
        for name in ("ttft_ms", "itl_ms"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"service level {name} {getattr(self, name)} is invalid; use a number above 0"
                )

    def keeps(self, record: RequestRecord) -> bool:
        """True if a request was completed with a TTFT, and a 95th percentile of its inter-token latency,
        within the limits.
        """
        if record.outcome != "completed" or record.ttft is None or record.ttft * 1e3 > self.ttft_ms:
            return False
        return not record.gaps or float(np.percentile(record.gaps, PERCENTILE)) * 1e3 <= self.itl_ms

    def holds(self, records: Sequence[RequestRecord]) -> bool:
        """True if no request of the run failed, and the 95th percentiles of TTFT and inter-token latency over
        the run are within the limits.
        """
        first = [record.ttft for record in records if record.ttft is not None]
        gaps = [gap for record in records for gap in record.gaps]
        if not first or any(record.outcome == "failed" for record in records):
            return False
        within = float(np.percentile(first, PERCENTILE)) * 1e3 <= self.ttft_ms
        return within and (not gaps or float(np.percentile(gaps, PERCENTILE)) * 1e3 <= self.itl_ms)
