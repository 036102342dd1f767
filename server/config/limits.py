"""The minimum and maximum of each numeric setting."""

from __future__ import annotations

from collections.abc import Mapping

DAY = 24 * 60 * 60
MAX_TOKENS = 2**24
LIMITS: Mapping[str, tuple[float, float]] = {
    "port": (0, 65535),
    "threads": (1, 1024),
    "max_num_seqs": (1, 4096),
    "max_num_batched_tokens": (1, MAX_TOKENS),
    "prefill_chunk": (1, MAX_TOKENS),
    "max_model_len": (1, MAX_TOKENS),
    "default_max_tokens": (1, MAX_TOKENS),
    "kv_cache_memory": (1, 2**44),
    "max_adapters": (1, 4096),
    "max_cpu_adapters": (1, 65536),
    "max_loaded_bases": (1, 64),
    "base_idle_seconds": (0, DAY),
    "base_wait_seconds": (0, 3600),
    "max_lora_rank": (1, 4096),
    "max_queue": (0, 65536),
    "max_body": (1, 16 * 1024 * 1024),
    "max_bodies_memory": (1, 2**44),
    "max_connections": (1, 1_000_000),
    "max_fetch_size": (1, 2**40),
    "fetch_timeout": (1, DAY),
    "step_timeout": (1, DAY),
    "restart_engine": (0, 1000),
    "request_timeout": (0, 7 * DAY),
    "drain_delay": (0, 3600),
    "drain_seconds": (0, DAY),
    "follow_registry": (0, DAY),
}
"""Maps each setting to (minimum, maximum). A value beyond the maximum is a mistake or more than a server can
hold.

For scale: a thread takes at least 0.1 MiB, and parsing a body takes 2 ms per MiB.
"""
