"""Renders one scrape of the metrics as text, in the format that the scraper requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8

from server.metrics.collectors import BaseCollectors
from server.metrics.families import MetricFamily

_END = b"# EOF\n"


def scrape(exposed: BaseCollectors, accept: str) -> tuple[bytes, str]:
    """Return all metrics as text, and the content type. `accept`, the scraper's Accept header, chooses
    Prometheus' format or OpenMetrics.

    All names are valid in Prometheus 2, colons included, so no name has to be escaped.
    """
    encode, content_type = choose_encoder(accept)
    body = cast("Callable[..., bytes]", encode)(exposed, escaping=ALLOWUTF8)
    openmetrics = content_type.startswith("application/openmetrics-text")
    suffix = "" if openmetrics else "_total"
    parts = [body.removesuffix(_END), *(_written(family, suffix) for family in exposed.families())]
    return b"".join([*parts, _END] if openmetrics else parts), content_type


def _written(families: Iterable[tuple[str | None, MetricFamily]], suffix: str) -> bytes:
    """Return the lines of one metric for all bases. `suffix` is added to a counter's name in the HELP and
    TYPE lines.
    """
    lines: list[str] = []
    for base, family in families:
        if not lines:
            name = family.name + (suffix if family.kind == "counter" else "")
            lines = [f"# HELP {name} {family.documentation}\n", f"# TYPE {name} {family.kind}\n"]
        lines += family.lines(base)
    return "".join(lines).encode()
