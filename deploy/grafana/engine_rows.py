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
                "Adapters loaded in the engine's slots, and the number of slots.",
                (state("vllm:num_gpu_loaded_lora_adapters", "model_name"), "{{model_name}} loaded"),
                (state("vllm:max_gpu_lora_adapters", "model_name"), "{{model_name}} slots"),
            ),
            quarter(
                "Resident",
                "1 while the weights of an adapter version are in one of the engine's slots.",
                (
                    f'max by (adapter, version) (oneseek_adapter_resident{{{ALL},tier="device"}})',
                    "{{adapter}}@{{version}}",
                ),
                stacked=True,
            ),
            quarter(
                "Versions",
                "Adapter versions that are served, and those of them that can no longer be loaded (damaged).",
                (state("oneseek_adapters_served", "base"), "{{base}} served"),
                (state("oneseek_adapters_damaged", "base"), "{{base}} damaged"),
            ),
            quarter(
                "Loads",
                "Loads of adapters into the engine per second, by outcome.",
                (total("oneseek_adapter_loads_total", "outcome"), "{{outcome}}"),
                unit="ops",
            ),
            quarter(
                "Time of a load",
                "95th percentile of the time to read an adapter, copy it to a slot and probe it.",
                (quantile(0.95, "oneseek_adapter_load_seconds"), "p95"),
                unit="s",
            ),
            quarter(
                "Evictions",
                "Evictions per second of adapters from their slots, to make room for others.",
                (total("oneseek_adapter_evictions_total", "adapter"), "{{adapter}}"),
                unit="ops",
            ),
            quarter(
                "Requests that waited",
                "Share of requests that waited for their adapter to load. Above 20%, add adapter slots.",
                (f"{total(f'{wait}_count')} / {total('oneseek_requests_total')}", "waited"),
                unit="percentunit",
            ),
            quarter(
                "Wait for an adapter",
                "95th percentile of the wait, among requests that waited for their adapter to load.",
                (quantile(0.95, wait), "p95"),
                unit="s",
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
                "Share of each alias's requests that each of its versions answers.",
                (
                    f"{asked} / on (adapter) group_left () {of_alias}",
                    legend,
                ),
                unit="percentunit",
            ),
            quarter(
                "Errors",
                "Share of answers with a 5xx status, by version.",
                (errors(by, NAMED), legend),
                unit="percentunit",
            ),
            quarter(
                "First token, p95",
                "95th percentile of the time from a request's arrival to its first token, by version.",
                (quantile(0.95, "oneseek_time_to_first_token_seconds", by, NAMED), legend),
                unit="s",
            ),
            quarter(
                "Between tokens, p95",
                "95th percentile of the time between two tokens of an answer, by version.",
                (quantile(0.95, "oneseek_inter_token_latency_seconds", by, NAMED), legend),
                unit="s",
            ),
            lines(
                shown(
                    "Shadow requests",
                    "Copies of requests sent to shadow versions. `dropped`: clients' requests came first.",
                    (total("oneseek_shadow_requests_total", f"{by}, outcome"), f"{legend} {{{{outcome}}}}"),
                    unit="reqps",
                )
            ),
            lines(
                shown(
                    "First token of shadows, p95",
                    "Time from the call of the engine to the first token of a shadow version's answer.",
                    (quantile(0.95, "oneseek_shadow_time_to_first_token_seconds", by), legend),
                    unit="s",
                )
            ),
            lines(
                shown(
                    "Ended trials",
                    "Canaries and shadows that the server ended in the last hour, by outcome.",
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
                "Share of the KV cache in use. Above 90% with preemptions, the cache is too small.",
                (state("oneseek_kv_cache_usage_ratio", "instance, base"), "{{instance}} {{base}}"),
                unit="percentunit",
            ),
            quarter(
                "Prefix cache",
                "Share of prompt tokens that were found in the prefix cache.",
                (f"{hits} / {queries}", "hits"),
                unit="percentunit",
            ),
            quarter(
                "Batch",
                "Requests in one engine step: mean and p95.",
                (f"{total('oneseek_batch_size_sum')} / {total('oneseek_batch_size_count')}", "mean"),
                (quantile(0.95, "oneseek_batch_size"), "p95"),
            ),
            quarter(
                "Step",
                "Duration of one engine step: p50, p99, and of the current step so far.",
                *quantiles("oneseek_step_seconds", 50, 99),
                (f"max(oneseek_step_age_seconds{{{ALL}}})", "under way"),
                unit="s",
            ),
            quarter(
                "Queue",
                "Time from arrival at the engine to the first engine step: p50 and p95.",
                *quantiles("oneseek_queue_seconds", 50, 95),
                unit="s",
            ),
            quarter(
                "Prefill",
                "Time from the first engine step to the first token: p50 and p95.",
                *quantiles("oneseek_prefill_seconds", 50, 95),
                unit="s",
            ),
            quarter(
                "Preemptions",
                "Running requests moved back to the queue: KV cache full, or another API key's fair share.",
                (total("oneseek_preemptions_total"), "memory"),
                (total("oneseek_fair_preemptions_total"), "fairness"),
                unit="ops",
            ),
            quarter(
                "Process",
                "Resident memory of the server's process.",
                (state("process_resident_memory_bytes", "instance"), "{{instance}}"),
                unit="bytes",
            ),
        ],
        collapsed=False,
    )
