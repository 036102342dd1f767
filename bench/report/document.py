"""Build report.json: everything that was measured, on which machine, as one JSON object. docs/benchmarking.md
describes its fields.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.host import describe, find_gpu
from bench.load.records import RequestRecord
from bench.suite.measure import ScenarioResult
from bench.suite.ramp import RampResult
from bench.target.metrics import scrape
from bench.target.probe import TargetServer

SCHEMA = "oneseek-bench/1"
ABOUT = ("oneseek_build_info", "oneseek_device_info", "vllm:cache_config_info")
"""Names of metrics whose labels describe the server, such as its version and its device."""


def environment(python: Path) -> dict[str, Any]:
    """Return what readers need to judge the figures: the date, the machine, package versions, load average
    and command.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "host": describe(find_gpu(), python, None),
        "load_average": [round(value, 2) for value in _load_average()],
    }


def _load_average() -> tuple[float, ...]:
    return os.getloadavg() if hasattr(os, "getloadavg") else ()


def describe_target(target: TargetServer) -> dict[str, Any]:
    """Return how the server describes itself in /version, in the list of its models and in its metrics."""
    infos = {name: dict(labels) for name, labels, _ in scrape(target.endpoint) if name in ABOUT}
    return {
        "url": target.url,
        "kind": target.kind,
        "version": target.endpoint.json("/version"),
        "about": infos,
        "base": target.base,
        "adapters": len(target.adapters),
        "by_language": dict(target.by_language),
        "context": target.context,
        "tokens_per_word": {code: round(value, 3) for code, value in target.tokens_per_word.items()},
    }


def report(
    about: dict[str, Any],
    results: Sequence[ScenarioResult],
    ramps: Sequence[RampResult],
    limit: float | None,
    limit_of: Callable[[ScenarioResult], float | None] | None = None,
) -> dict[str, Any]:
    """Return the whole report. `limit` is the machine's highest possible rate in tokens per second, from
    --limit-tokens-per-second. If it is None, `limit_of` computes the limit of each run.
    """
    failed = [result.scenario.name for result in results if result.failed]
    return {
        "schema": SCHEMA,
        "failed": failed,
        **about,
        "load_average_after": [round(value, 2) for value in _load_average()],
        "limit_tokens_per_second": limit,
        "scenarios": [
            _scenario(result, limit_of(result) if limit is None and limit_of else limit) for result in results
        ],
        "ramps": [_ramp(found) for found in ramps],
    }


def _scenario(result: ScenarioResult, limit: float | None) -> dict[str, Any]:
    figures = asdict(result.figures)
    figures["routing"]["accuracy"] = result.figures.routing.accuracy
    rate = result.figures.tokens_per_second
    return {
        "name": result.scenario.name,
        "says": result.scenario.says,
        "scenario": asdict(result.scenario),
        "load": asdict(result.shape) | {"label": result.shape.label},
        "failed": result.failed,
        "figures": figures,
        "limit_tokens_per_second": round(limit, 1) if limit else None,
        "share_of_limit": round(rate / limit, 4) if limit else None,
        "queue_mean_ms": _ms(result.queue_mean),
        "reconciliation": asdict(result.reconciliation),
        "client": [asdict(use) | {"share_of_core": round(use.share, 3)} for use in result.run.uses],
        "warnings": list(result.run.warnings),
        "notes": list(result.notes),
        "changes": [asdict(change) for change in result.changes],
        "batch": [asdict(sample) for sample in result.batch],
        "requests": [request_row(record) for record in result.run.records],
    }


def request_row(record: RequestRecord) -> dict[str, Any]:
    """Return the record of a request as JSON. Times are in milliseconds; `at_ms` counts from the start of the
    run.
    """
    gaps = sorted(record.gaps)
    return {
        "number": record.number,
        "asked": record.model,
        "answered_by": record.answered_by,
        "language": record.language,
        "outcome": record.outcome,
        "status": record.status,
        "at_ms": _ms(record.intended),
        "ttft_ms": _ms(record.ttft),
        "itl_p50_ms": _ms(gaps[len(gaps) // 2]) if gaps else None,
        "itl_max_ms": _ms(gaps[-1]) if gaps else None,
        "e2e_ms": _ms(record.latency),
        "queue_ms": _ms(record.queue),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "words": record.words,
        **({"fault": record.fault} if record.fault else {}),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def _ramp(found: RampResult) -> dict[str, Any]:
    return {
        "scenario": found.steps[0].scenario.name,
        "holds": found.holds,
        "bounded": found.bounded,
        "unit": "users" if found.steps[0].shape.users else "requests/s",
        "steps": [
            {
                "load": step.shape.users or step.shape.rate,
                "holds": step.figures.level_holds and not step.failed,
                "total": asdict(step.figures.total),
            }
            for step in found.steps
        ],
    }
