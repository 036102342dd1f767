"""Families that write themselves are read as prometheus-client's own are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics.families import CounterFamily, HistogramFamily, MetricFamily

BOUNDS = (0.001, 0.25, 1, 10)
VALUES = st.floats(0, 100) | st.sampled_from(BOUNDS)
NAMES = st.sampled_from(["a", "b", 'quoted "b"', "back\\slash\nand line"])


def parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return [(sample.name, sample.labels, sample.value) for sample in samples]


def written(family: MetricFamily, base: str | None = None) -> list[tuple[str, dict[str, str], float]]:
    return parsed("".join(family.lines(base)))


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_a_histogram_scrapes_as_prometheus_clients_own(observed: list[tuple[str, float]]) -> None:
    disable_created_metrics()
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("gap_seconds", "Gaps", ("adapter",), buckets=BOUNDS, registry=theirs)
    histogram = HistogramFamily("gap_seconds", "Gaps", ("adapter",), BOUNDS, ours)
    for adapter, value in observed:
        reference.labels(adapter).observe(value)
        histogram.labels(adapter).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)
    assert written(histogram) == parsed(generate_latest(theirs).decode())


@given(st.lists(st.tuples(NAMES, st.floats(0, 1e9))))
def test_a_counter_scrapes_as_prometheus_clients_own(counted: list[tuple[str, float]]) -> None:
    disable_created_metrics()
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Counter("things", "Things", ("adapter", "zone"), registry=theirs)
    counter = CounterFamily("things", "Things", ("adapter", "zone"), ours)
    for adapter, amount in counted:
        reference.labels(adapter, "z").inc(amount)
        counter.labels(adapter, "z").inc(amount)
    assert generate_latest(ours) == generate_latest(theirs)
    assert written(counter) == parsed(generate_latest(theirs).decode())


def test_a_series_is_made_once() -> None:
    histogram = HistogramFamily("gap_seconds", "Gaps", ("adapter",), BOUNDS, CollectorRegistry())
    assert histogram.labels("a") is histogram.labels("a")
    assert histogram.labels("a") is not histogram.labels("b")


def test_of_several_bases_each_line_says_which() -> None:
    histogram = HistogramFamily("gap_seconds", "Gaps", ("adapter",), BOUNDS, CollectorRegistry())
    histogram.labels("a").observe(0.5)
    assert {labels["base"] for _, labels, _ in written(histogram, "one")} == {"one"}
    assert {labels.get("base") for _, labels, _ in written(histogram)} == {None}
    of_models = HistogramFamily("x_seconds", "X", ("model_name",), BOUNDS, CollectorRegistry())
    of_models.labels("one").observe(0.5)
    assert {labels.get("base") for _, labels, _ in written(of_models, "one")} == {None}


def test_a_version_goes_alone_and_an_alias_with_all() -> None:
    counter = CounterFamily("things", "Things", ("kind", "adapter", "version"), CollectorRegistry())
    for alias, version in (("a", "v1"), ("a", "v2"), ("b", "v1")):
        counter.labels("x", alias, version).inc()
    counter.drop("a", "v1")
    assert [(labels["adapter"], labels["version"]) for _, labels, _ in written(counter)] == [
        ("a", "v2"),
        ("b", "v1"),
    ]
    counter.drop("a")
    assert [labels["adapter"] for _, labels, _ in written(counter)] == ["b"]
    counter.labels("x", "a", "v2").inc()
    assert [value for _, labels, value in written(counter) if labels["adapter"] == "a"] == [1]
