"""Builds the dashboard's Prometheus queries, from the metrics and labels of docs/metrics.md."""

from __future__ import annotations

ALL = 'job="$job",instance=~"$instance"'
ONE = f'{ALL},adapter=~"$adapter"'
NAMED = f'{ALL},adapter!~"base|blend|external|none|unknown|other"'
OVER = "[$__rate_interval]"


def rate(metric: str, labels: str = ALL) -> str:
    """Return a query for the increase per second."""
    return f"rate({metric}{{{labels}}}{OVER})"


def total(metric: str, by: str = "", labels: str = ALL) -> str:
    """Increase a second, summed by labels."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({rate(metric, labels)})"


def quantile(share: float, metric: str, by: str = "", labels: str = ALL) -> str:
    """A quantile of a histogram, by labels."""
    grouped = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({share}, sum by ({grouped}) ({rate(f'{metric}_bucket', labels)}))"


def errors(by: str = "", labels: str = ALL) -> str:
    """The share of answers that end in an error of the server, 0 if there is none."""
    every = total("oneseek_requests_total", by, labels)
    failed = total("oneseek_requests_total", by, f'{labels},status=~"5.."')
    return f"({failed} or 0 * {every}) / {every}"


def state(metric: str, by: str, labels: str = ALL) -> str:
    """A gauge, summed by labels."""
    return f"sum by ({by}) ({metric}{{{labels}}})"


def quantiles(metric: str, *shares: int, by: str = "", labels: str = ALL) -> list[tuple[str, str]]:
    """Several quantiles, in percent, each with its legend."""
    legend = "".join(f"{{{{{label.strip()}}}}} " for label in by.split(",") if label)
    return [(quantile(share / 100, metric, by, labels), f"{legend}p{share}") for share in shares]
