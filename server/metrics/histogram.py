"""A histogram for what is measured with every token, where prometheus-client's own costs too much.

That one takes a lock twice for each observation. Series of this one belong to a single thread, the event
loop's; a scrape in another thread may see an observation in `_count` that is not in `_sum` yet.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """The observations of one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations by the first bound that is not below them; the last: above all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class TokenHistogram(Collector):
    """All series of one metric, as Prometheus reads them. `bounds` are the buckets' upper ends, ascending."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._names = [floatToGoString(bound) for bound in (*bounds, math.inf)]
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these label values, made where there is none yet."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Series(self._bounds)
        return series

    def remove_by_labels(self, labels: Mapping[str, str]) -> None:
        """Remove every series that has these values, whatever its other labels."""
        wanted = {self._labels.index(name): value for name, value in labels.items()}
        for values in list(self._series):
            if all(values[place] == value for place, value in wanted.items()):
                del self._series[values]

    def describe(self) -> Iterable[Metric]:
        """The metric without its series."""
        yield self._family()

    def collect(self) -> Iterable[Metric]:
        """The metric with all its series."""
        family = self._family()
        for values, series in list(self._series.items()):
            buckets = zip(self._names, accumulate(series.counts), strict=True)
            family.add_metric(values, list(buckets), series.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
