"""Builds the dashboard's Prometheus queries, from the metrics and labels of docs/metrics.md."""

from __future__ import annotations

ALL = 'job="$job",instance=~"$instance"'
ONE = f'{ALL},adapter=~"$adapter"'
NAMED = f'{ALL},adapter!~"base|blend|external|none|unknown|other"'
OVER = "[$__rate_interval]"


def rate(metric: str, labels: str = ALL) -> str:
    """Return a PromQL query for the increase per second of a counter."""
    return f"rate({metric}{{{labels}}}{OVER})"


def total(metric: str, by: str = "", labels: str = ALL) -> str:
    """Return a PromQL query for the increase per second of a counter, summed by the labels `by`."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({rate(metric, labels)})"


def quantile(share: float, metric: str, by: str = "", labels: str = ALL) -> str:
    """Return a PromQL query for the quantile `share` (0 to 1) of a histogram, by the labels `by`."""
    grouped = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, sum by ({grouped}) ({rate(f'{metric}_bucket', labels)}))"


def errors(by: str = "", labels: str = ALL) -> str:
    """Return a PromQL query for the share of answers with a 5xx status, by the labels `by`. It is 0 if there
    are none.
    """
    every = total("oneseek_requests_total", by, labels)
    failed = total("oneseek_requests_total", by, f'{labels},status=~"5.."')
    return f"({failed} or 0 * {every}) / {every}"


def state(metric: str, by: str, labels: str = ALL) -> str:
    """Return a PromQL query for a gauge, summed by the labels `by`."""
    return f"sum by ({by}) ({metric}{{{labels}}})"


def quantiles(metric: str, *shares: int, by: str = "", labels: str = ALL) -> list[tuple[str, str]]:
    """Return PromQL queries for several quantiles of a histogram, each with its legend. `shares` are in
    percent.
    """
    legend = "".join(f"{{{{{label.strip()}}}}} " for label in by.split(",") if label)
    return [(quantile(share / 100, metric, by, labels), f"{legend}p{share}") for share in shares]
