"""The histogram for tokens is read as prometheus-client's own is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from server.metrics.histogram import TokenHistogram

BOUNDS = (0.001, 0.25, 1, 10)
VALUES = st.floats(0, 100) | st.sampled_from(BOUNDS)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), VALUES)))
def test_it_scrapes_as_prometheus_clients_own(observed: list[tuple[str, float]]) -> None:
    disable_created_metrics()
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("gap_seconds", "Gaps", ("adapter",), buckets=BOUNDS, registry=theirs)
    histogram = TokenHistogram("gap_seconds", "Gaps", ("adapter",), BOUNDS, ours)
    for adapter, value in observed:
        reference.labels(adapter).observe(value)
        histogram.labels(adapter).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_series_is_made_once() -> None:
    histogram = TokenHistogram("gap_seconds", "Gaps", ("adapter",), BOUNDS, CollectorRegistry())
    assert histogram.labels("a") is histogram.labels("a")
    assert histogram.labels("a") is not histogram.labels("b")
