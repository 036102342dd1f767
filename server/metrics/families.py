"""Counters and histograms that are fast enough to update at every token and to export by the thousand.

Those of prometheus-client cost too much: they take a lock for each observation, and format every label of
every line at each scrape. Only the event loop's thread may update the series of this module. A scrape in
another thread may see an observation in `_count` that is not in `_sum` yet.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

S = TypeVar("S")


class SeriesNames(Protocol):
    """Decides which name an adapter has in metrics: its own, or the shared name `other`."""

    def version_name(self, alias: str, version: str) -> tuple[str, str]:
        """Return the alias and version that stand for an adapter in metrics: its own, or `other` and no
        version.
        """
        ...

    def alias_name(self, alias: str) -> str:
        """Return the alias that stands for an adapter in metrics: its own, or `other`."""
        ...


class MetricFamily(Protocol):
    """One metric with all its series (one for each set of labels). It renders its own lines for a scrape."""

    name: str
    """Name of the metric, without `_total`."""
    documentation: str
    kind: str
    """Type of the metric: `counter` or `histogram`."""

    def lines(self, base: str | None) -> list[str]:
        """Return a line of text for each sample. `base`, if given, becomes a label, unless the series have
        `model_name`.
        """
        ...

    def drop(self, alias: str, version: str | None = None) -> None:
        """Remove every series of an alias, or of one of its versions."""
        ...


class SeriesTable(Generic[S]):
    """The series of one metric. They can be looked up by the values of their labels, or by alias."""

    def __init__(self, labels: Sequence[str], make: Callable[[], S], names: SeriesNames | None) -> None:
        self.labels = tuple(labels)
        self._make = make
        self._names = names
        self._alias = self.labels.index("adapter") if "adapter" in self.labels else None
        self._version = self.labels.index("version") if "version" in self.labels else None
        self._series: dict[tuple[str, ...], S] = {}
        self._by_alias: dict[str, set[tuple[str, ...]]] = {}

    def get(self, values: tuple[str, ...]) -> S:
        """Return the series with these label values; create it if it does not exist.

        Adapters without a name of their own in metrics share the series of `other`.
        """
        if (found := self._series.get(values)) is not None:
            return found
        values = self._named(values)
        if (found := self._series.get(values)) is None:
            found = self._series[values] = self._make()
            if self._alias is not None:
                self._by_alias.setdefault(values[self._alias], set()).add(values)
        return found

    def _named(self, values: tuple[str, ...]) -> tuple[str, ...]:
        if self._names is None or self._alias is None:
            return values
        named = list(values)
        if self._version is None:
            named[self._alias] = self._names.alias_name(values[self._alias])
        else:
            alias, version = self._names.version_name(values[self._alias], values[self._version])
            named[self._alias], named[self._version] = alias, version
        return tuple(named)

    def items(self) -> list[tuple[tuple[str, ...], S]]:
        """Return every series with the values of its labels."""
        return list(self._series.items())

    def drop(self, alias: str, version: str | None) -> None:
        """Remove the series of an alias, or of one of its versions."""
        every = self._by_alias.get(alias, set())
        gone = {
            one for one in every if version is None or self._version is None or one[self._version] == version
        }
        for values in gone:
            del self._series[values]
        if len(gone) == len(every):
            self._by_alias.pop(alias, None)
        else:
            every -= gone

    def of_base(self, base: str | None) -> tuple[str | None, Mapping[str, str]]:
        """Return the base's name, and the label `base` with this name, to add to each line.

        Return None and no label if the series have the label `model_name`, or if there is only one base.
        """
        if base is None or "model_name" in self.labels:
            return None, {}
        return base, {"base": base}

    def spelled(self, values: tuple[str, ...], extra: Mapping[str, str]) -> str:
        """Return labels as text, as between the braces of a metric's line, in alphabetical order."""
        return ",".join(self._pairs(values, extra).values())

    def around(self, label: str, values: tuple[str, ...], extra: Mapping[str, str]) -> tuple[str, str]:
        """Return the text of the labels before and after `label` in alphabetical order, with commas."""
        pairs = self._pairs(values, extra)
        before = "".join(f"{pair}," for name, pair in pairs.items() if name < label)
        return before, "".join(f",{pair}" for name, pair in pairs.items() if name > label)

    def _pairs(self, values: tuple[str, ...], extra: Mapping[str, str]) -> dict[str, str]:
        pairs = sorted([*zip(self.labels, values, strict=True), *extra.items()])
        return {name: f'{name}="{_escaped(value)}"' for name, value in pairs}


class CounterSeries:
    """A counter's value for one set of labels."""

    __slots__ = ("prefix", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.prefix: tuple[str | None, str] | None = None
        """The base, and the text of a line before the value, which depends on the base."""

    def inc(self, amount: float = 1) -> None:
        """Add `amount` to the counter."""
        self.total += amount


class CounterFamily(Collector):
    """A counter with all its series."""

    kind = "counter"

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        names: SeriesNames | None = None,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self._table = SeriesTable(labels, CounterSeries, names)
        registry.register(self)

    def labels(self, *values: str) -> CounterSeries:
        """Return the series with these label values; create it if it does not exist."""
        return self._table.get(values)

    def drop(self, alias: str, version: str | None = None) -> None:
        """Remove every series of an alias, or of one of its versions. See `MetricFamily.drop`."""
        self._table.drop(alias, version)

    def lines(self, base: str | None) -> list[str]:
        """Return a line of text for each sample. See `MetricFamily.lines`."""
        base, extra = self._table.of_base(base)
        out: list[str] = []
        for values, series in self._table.items():
            if series.prefix is None or series.prefix[0] != base:
                series.prefix = base, f"{self.name}_total{{{self._table.spelled(values, extra)}}} "
            out.append(f"{series.prefix[1]}{floatToGoString(series.total)}\n")
        return out

    def describe(self) -> Iterable[Metric]:
        """Yield the metric's name, help and type, without its series, for prometheus-client."""
        yield CounterMetricFamily(self.name, self.documentation, labels=self._table.labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric with all its series, for prometheus-client."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self._table.labels)
        for values, series in self._table.items():
            family.add_metric(values, series.total)
        yield family


class HistogramSeries:
    """A histogram's observations for one set of labels."""

    __slots__ = ("_bounds", "counts", "prefixes", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Number of observations in each bucket; the last bucket is for those above all bounds."""
        self.total = 0.0
        self.prefixes: tuple[str | None, list[str]] | None = None
        """The base, and the text before the value in each line: every bucket's, the count's and the sum's."""

    def observe(self, value: float) -> None:
        """Record one observation."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class HistogramFamily(Collector):
    """A histogram with all its series. `bounds` are the buckets' upper ends, ascending."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
        names: SeriesNames | None = None,
    ) -> None:
        self.name = name
        self.documentation = documentation
        self._bounds = tuple(bounds)
        self._ends = [floatToGoString(bound) for bound in (*bounds, math.inf)]
        self._table = SeriesTable(labels, lambda: HistogramSeries(self._bounds), names)
        registry.register(self)

    def labels(self, *values: str) -> HistogramSeries:
        """Return the series with these label values; create it if it does not exist."""
        return self._table.get(values)

    def drop(self, alias: str, version: str | None = None) -> None:
        """Remove every series of an alias, or of one of its versions. See `MetricFamily.drop`."""
        self._table.drop(alias, version)

    def lines(self, base: str | None) -> list[str]:
        """Return a line of text for each sample. See `MetricFamily.lines`."""
        base, extra = self._table.of_base(base)
        out: list[str] = []
        for values, series in self._table.items():
            if series.prefixes is None or series.prefixes[0] != base:
                series.prefixes = base, self._prefixes(values, extra)
            starts, sofar = series.prefixes[1], 0
            for start, count in zip(starts, list(series.counts), strict=False):
                sofar += count
                out.append(f"{start}{sofar}\n")
            out.append(f"{starts[-2]}{sofar}\n")
            out.append(f"{starts[-1]}{floatToGoString(series.total)}\n")
        return out

    def _prefixes(self, values: tuple[str, ...], extra: Mapping[str, str]) -> list[str]:
        before, after = self._table.around("le", values, extra)
        buckets = [f'{self.name}_bucket{{{before}le="{end}"{after}}} ' for end in self._ends]
        labels = self._table.spelled(values, extra)
        return [*buckets, *(f"{self.name}_{what}{{{labels}}} " for what in ("count", "sum"))]

    def describe(self) -> Iterable[Metric]:
        """Yield the metric's name, help and type, without its series, for prometheus-client."""
        yield HistogramMetricFamily(self.name, self.documentation, labels=self._table.labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the metric with all its series, for prometheus-client."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self._table.labels)
        for values, series in self._table.items():
            buckets = zip(self._ends, accumulate(series.counts), strict=True)
            family.add_metric(values, list(buckets), series.total)
        yield family


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
