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
            figure(
                "Requests",
                "Answered HTTP requests per second, whatever their status.",
                total("oneseek_requests_total"),
                unit="reqps",
            ),
            figure(
                "Errors",
                "Share of answers with a 5xx status. The objective is at most 0.5%.",
                errors(),
                (0.005, "orange"),
                (0.03, "red"),
                unit="percentunit",
            ),
            figure(
                "First token, p95",
                "Time from a request's arrival to its first token. 95% should be below 2.5 s.",
                quantile(0.95, "oneseek_time_to_first_token_seconds"),
                (2.5, "orange"),
                (10, "red"),
                unit="s",
            ),
            figure(
                "Between tokens, p99",
                "Time between two tokens of an answer. 99% should be below 0.2 s.",
                quantile(0.99, "oneseek_inter_token_latency_seconds"),
                (0.2, "orange"),
                (1, "red"),
                unit="s",
            ),
            figure(
                "Alerts",
                "Number of firing alerts from the rules in deploy/prometheus.",
                'count(ALERTS{alertname=~"OneSeek.*",alertstate="firing",job="$job"}) or vector(0)',
                (1, "red"),
            ),
            figure(
                "Ledger",
                "State of the signed ledger of adapter changes, as `oneseek ledger verify` reports it.",
                (f"max by (state) (oneseek_ledger_state{{{ALL}}}) == 1", "{{state}}"),
            ),
            lines(
                shown(
                    "Requests by status",
                    "Answered requests by HTTP status. 429: the queue is full. 499: the client disconnected.",
                    (total("oneseek_requests_total", "status"), "{{status}}"),
                    unit="reqps",
                ),
                stacked=True,
            ),
            lines(
                shown(
                    "Tokens",
                    "Tokens per second. `cached`: the `prompt` tokens found in the prefix cache.",
                    (total("oneseek_tokens_total", "kind"), "{{kind}}"),
                    unit="short",
                )
            ),
            lines(
                shown(
                    "In the engine",
                    "Requests in the running batch, and requests that wait because it is full.",
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
        "Figures of each adapter version in the engine, and of the 200 used most; all others are `other`.",
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
                "The adapter's requests per second, by version and HTTP status.",
                (total("oneseek_requests_total", "version, status", ONE), "{{version}} {{status}}"),
                unit="reqps",
            ),
            quarter(
                "First token",
                "Time from a request's arrival to its first token: p50 and p95 by version.",
                *quantiles(first, 50, 95, by="version", labels=ONE),
                unit="s",
            ),
            quarter(
                "Between tokens",
                "Time between two tokens of an answer: p50 and p95 by version.",
                *quantiles(between, 50, 95, by="version", labels=ONE),
                unit="s",
            ),
            quarter(
                "Tokens",
                "The adapter's tokens per second, by version and kind (prompt, cached, completion).",
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
                "Routed requests per second, by detected language; `none` if no language was detected.",
                (total("oneseek_route_decisions_total", "language"), "{{language}}"),
                stacked=True,
            ),
            quarter(
                "Reasons",
                "What decided which adapter answers: a header, the model field, the language, a default.",
                (total("oneseek_route_decisions_total", "reason"), "{{reason}}"),
                stacked=True,
            ),
            distribution(
                shown(
                    "Confidence",
                    "Probability of the detected language. If it falls, requests have changed.",
                    (total("oneseek_route_confidence_bucket", "le"), "{{le}}"),
                    width=6,
                )
            ),
            quarter(
                "Time to decide",
                "Time to detect the language and choose the adapter: p50 and p99.",
                *quantiles("oneseek_route_seconds", 50, 99),
                unit="s",
            ),
        ],
    )
