"""Build the upper half of the Grafana dashboard: the server's health, its adapters, and why each was
chosen.
"""

from __future__ import annotations

from deploy.grafana.panels import BoardRow, distribution, figure, lines, quarter, rows_of, shown
from deploy.grafana.promql import ALL, NAMED, ONE, errors, quantile, quantiles, total


def overview() -> BoardRow:
    """Return the row of panels about the server's health, with the figures on which alerts are defined."""
    return BoardRow(
        "Overview",
        [
            figure("Requests", "Answered requests a second.", total("oneseek_requests_total"), unit="reqps"),
            figure(
                "Errors",
                "Share of 5xx. The objective is 0.5%.",
                errors(),
                (0.005, "orange"),
                (0.03, "red"),
                unit="percentunit",
            ),
            figure(
                "First token, p95",
                "From arrival to the first token. The objective is 2.5 s for 95%.",
                quantile(0.95, "oneseek_time_to_first_token_seconds"),
                (2.5, "orange"),
                (10, "red"),
                unit="s",
            ),
            figure(
                "Between tokens, p99",
                "The objective is 0.2 s for 99%.",
                quantile(0.99, "oneseek_inter_token_latency_seconds"),
                (0.2, "orange"),
                (1, "red"),
                unit="s",
            ),
            figure(
                "Alerts",
                "Firing alerts of deploy/prometheus.",
                'count(ALERTS{alertname=~"OneSeek.*",alertstate="firing",job="$job"}) or vector(0)',
                (1, "red"),
            ),
            figure(
                "Ledger",
                "As `oneseek ledger verify` judges it.",
                (f"max by (state) (oneseek_ledger_state{{{ALL}}}) == 1", "{{state}}"),
            ),
            lines(
                shown(
                    "Requests by status",
                    "429: no place in the queue. 499: the client went away.",
                    (total("oneseek_requests_total", "status"), "{{status}}"),
                    unit="reqps",
                ),
                stacked=True,
            ),
            lines(
                shown(
                    "Tokens",
                    "`cached` is the part of `prompt` that was found in the prefix cache.",
                    (total("oneseek_tokens_total", "kind"), "{{kind}}"),
                    unit="short",
                )
            ),
            lines(
                shown(
                    "In the engine",
                    "Waiting requests mean that the batch is full.",
                    ("sum(" + f"oneseek_requests_running{{{ALL}}})", "running"),
                    (f"sum(oneseek_requests_waiting{{{ALL}}})", "waiting"),
                )
            ),
        ],
    )


def versions() -> BoardRow:
    """Return the row with a table of every adapter and version: requests, errors, latencies and tokens."""
    by = "adapter, version"
    columns = (
        (total("oneseek_requests_total", by, NAMED), "requests/s", "reqps"),
        (errors(by, NAMED), "errors", "percentunit"),
        (quantile(0.95, "oneseek_time_to_first_token_seconds", by, NAMED), "first token p95", "s"),
        (quantile(0.95, "oneseek_inter_token_latency_seconds", by, NAMED), "between tokens p95", "s"),
        (total("oneseek_tokens_total", by, f'{NAMED},kind="completion"'), "tokens/s", "short"),
        (f'max by ({by}) (oneseek_adapter_resident{{{NAMED},tier="device"}})', "resident", "bool_yes_no"),
    )
    table = shown(
        "Adapters and versions",
        "Of the adapters in the engine and the 200 most used; the rest are `other`.",
        *((expr, name) for expr, name, _ in columns),
        width=24,
        height=9,
    )
    return BoardRow("Adapters", [rows_of(table, [unit for _, _, unit in columns], ["Time"])])


def adapter() -> BoardRow:
    """Return the row of panels about one adapter, with its versions side by side."""
    first, between = "oneseek_time_to_first_token_seconds", "oneseek_inter_token_latency_seconds"
    return BoardRow(
        "Adapter $adapter",
        [
            quarter(
                "Requests",
                "By version and status.",
                (total("oneseek_requests_total", "version, status", ONE), "{{version}} {{status}}"),
                unit="reqps",
            ),
            quarter(
                "First token",
                "p50 and p95 by version.",
                *quantiles(first, 50, 95, by="version", labels=ONE),
                unit="s",
            ),
            quarter(
                "Between tokens",
                "p50 and p95 by version.",
                *quantiles(between, 50, 95, by="version", labels=ONE),
                unit="s",
            ),
            quarter(
                "Tokens",
                "By version and kind.",
                (total("oneseek_tokens_total", "version, kind", ONE), "{{version}} {{kind}}"),
            ),
        ],
        repeat="adapter",
    )


def routing() -> BoardRow:
    """Return the row of panels about routing: which languages were detected, and why each adapter
    was chosen.
    """
    return BoardRow(
        "Routing",
        [
            quarter(
                "Languages",
                "Decisions by detected language; `none` if nothing was detected.",
                (total("oneseek_route_decisions_total", "language"), "{{language}}"),
                stacked=True,
            ),
            quarter(
                "Reasons",
                "What decided: header, model, detection, a default.",
                (total("oneseek_route_decisions_total", "reason"), "{{reason}}"),
                stacked=True,
            ),
            distribution(
                shown(
                    "Confidence",
                    "Of the detected languages. A shift downward means other texts than before.",
                    (total("oneseek_route_confidence_bucket", "le"), "{{le}}"),
                    width=6,
                )
            ),
            quarter(
                "Time to decide",
                "Detection and resolution, p50 and p99.",
                *quantiles("oneseek_route_seconds", 50, 99),
                unit="s",
            ),
        ],
    )
