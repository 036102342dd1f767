"""Builds the lower half of the Grafana dashboard: adapter slots, canaries and the engine."""

from __future__ import annotations

from deploy.grafana.panels import BoardRow, lines, quarter, shown
from deploy.grafana.promql import ALL, NAMED, errors, quantile, quantiles, state, total


def residency() -> BoardRow:
    """Return the row of panels about adapters in the engine, their loads and their evictions."""
    wait = "oneseek_adapter_wait_seconds"
    return BoardRow(
        "Residency and loads",
        [
            quarter(
                "Slots",
                "Loaded adapters, and how many there is room for.",
                (state("vllm:num_gpu_loaded_lora_adapters", "model_name"), "{{model_name}} loaded"),
                (state("vllm:max_gpu_lora_adapters", "model_name"), "{{model_name}} slots"),
            ),
            quarter(
                "Resident",
                "1 while a version is in the engine.",
                (
                    f'max by (adapter, version) (oneseek_adapter_resident{{{ALL},tier="device"}})',
                    "{{adapter}}@{{version}}",
                ),
                stacked=True,
            ),
            quarter(
                "Versions",
                "Served, and of them damaged.",
                (state("oneseek_adapters_served", "base"), "{{base}} served"),
                (state("oneseek_adapters_damaged", "base"), "{{base}} damaged"),
            ),
            quarter(
                "Loads",
                "By outcome.",
                (total("oneseek_adapter_loads_total", "outcome"), "{{outcome}}"),
                unit="ops",
            ),
            quarter(
                "Time of a load",
                "p95: reading, placing and probing.",
                (quantile(0.95, "oneseek_adapter_load_seconds"), "p95"),
                unit="s",
            ),
            quarter(
                "Evictions",
                "Adapters that made way for others.",
                (total("oneseek_adapter_evictions_total", "adapter"), "{{adapter}}"),
                unit="ops",
            ),
            quarter(
                "Requests that waited",
                "Share that waited for an adapter. Above 20% slots are too few.",
                (f"{total(f'{wait}_count')} / {total('oneseek_requests_total')}", "waited"),
                unit="percentunit",
            ),
            quarter(
                "Wait for an adapter", "p95 of those that waited.", (quantile(0.95, wait), "p95"), unit="s"
            ),
        ],
    )


def canary() -> BoardRow:
    """Return the row of panels that compare the versions of an adapter: a canary or shadow version beside the
    stable one.
    """
    by, legend = "adapter, version", "{{adapter}}@{{version}}"
    asked = total("oneseek_requests_total", by, NAMED)
    of_alias = total("oneseek_requests_total", "adapter", NAMED)
    ended = f"sum by (adapter, version, outcome) (increase(oneseek_rollouts_total{{{ALL}}}[1h]))"
    return BoardRow(
        "Canary",
        [
            quarter(
                "Share of the requests",
                "Of each alias, by version.",
                (
                    f"{asked} / on (adapter) group_left () {of_alias}",
                    legend,
                ),
                unit="percentunit",
            ),
            quarter("Errors", "By version.", (errors(by, NAMED), legend), unit="percentunit"),
            quarter(
                "First token, p95",
                "By version.",
                (quantile(0.95, "oneseek_time_to_first_token_seconds", by, NAMED), legend),
                unit="s",
            ),
            quarter(
                "Between tokens, p95",
                "By version.",
                (quantile(0.95, "oneseek_inter_token_latency_seconds", by, NAMED), legend),
                unit="s",
            ),
            lines(
                shown(
                    "Shadow requests",
                    "By outcome; `dropped` gave way to real requests.",
                    (total("oneseek_shadow_requests_total", f"{by}, outcome"), f"{legend} {{{{outcome}}}}"),
                    unit="reqps",
                )
            ),
            lines(
                shown(
                    "First token of shadows, p95",
                    "From the engine's call.",
                    (quantile(0.95, "oneseek_shadow_time_to_first_token_seconds", by), legend),
                    unit="s",
                )
            ),
            lines(
                shown(
                    "Ended",
                    "Canaries and shadows that were ended in the last hour.",
                    (
                        f"{ended} or vector(0)",
                        f"{legend} {{{{outcome}}}}",
                    ),
                )
            ),
        ],
    )


def engine() -> BoardRow:
    """Return the row of panels about the engine and the server's process."""
    hits, queries = total("oneseek_prefix_cache_hits_total"), total("oneseek_prefix_cache_queries_total")
    return BoardRow(
        "Engine",
        [
            quarter(
                "KV memory",
                "What requests hold; above 90% with preemptions it is too small.",
                (state("oneseek_kv_cache_usage_ratio", "instance, base"), "{{instance}} {{base}}"),
                unit="percentunit",
            ),
            quarter(
                "Prefix cache",
                "Share of the prompt tokens that were found.",
                (f"{hits} / {queries}", "hits"),
                unit="percentunit",
            ),
            quarter(
                "Batch",
                "Requests in one step: mean and p95.",
                (f"{total('oneseek_batch_size_sum')} / {total('oneseek_batch_size_count')}", "mean"),
                (quantile(0.95, "oneseek_batch_size"), "p95"),
            ),
            quarter(
                "Step",
                "Time of one step.",
                *quantiles("oneseek_step_seconds", 50, 99),
                (f"max(oneseek_step_age_seconds{{{ALL}}})", "under way"),
                unit="s",
            ),
            quarter(
                "Queue",
                "From arrival at the engine to the first step.",
                *quantiles("oneseek_queue_seconds", 50, 95),
                unit="s",
            ),
            quarter(
                "Prefill",
                "From the first step to the first token.",
                *quantiles("oneseek_prefill_seconds", 50, 95),
                unit="s",
            ),
            quarter(
                "Put back",
                "Running requests put back: for KV memory, or for another key's part.",
                (total("oneseek_preemptions_total"), "memory"),
                (total("oneseek_fair_preemptions_total"), "fairness"),
                unit="ops",
            ),
            quarter(
                "Process",
                "Memory of the server's process.",
                (state("process_resident_memory_bytes", "instance"), "{{instance}}"),
                unit="bytes",
            ),
        ],
        collapsed=False,
    )
