"""Report the results of a GPU benchmark as text and as JSON: each measuring point with its theoretical limit,
OneSeek beside vLLM, and whether the project's performance goals are met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.gpu.models import RANKS, TARGETS
from bench.gpu.record import ResultFile
from bench.gpu.scenarios import BY_NAME, SCENARIOS, Point
from bench.limits.devices import TABLE_VERSION, GpuSpec, find_device
from bench.limits.roofline import Model, decode_step, prefill, tokens_per_second

PointRow = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """A performance goal, with the worst value over the measuring points that it applies to."""

    name: str
    least: float
    worst: float | None
    """The worst value over all measuring points. None if none was measured."""
    where: str
    points: int

    @property
    def verdict(self) -> str:
        """Status of the goal: `met`, `missed`, or `not measured`."""
        if self.worst is None:
            return "not measured"
        return "met" if self.worst >= self.least else "missed"


def device_of(record: ResultFile) -> GpuSpec | None:
    """Return the specification of the GPU that was measured. None if it is not in the table of GPUs."""
    gpu = record.host["gpu"]
    return find_device(gpu["name"]) if gpu else None


def with_limits(record: ResultFile) -> list[dict[str, Any]]:
    """Return the measuring points, each with the GPU's theoretical limits for tokens/s, decode step and
    prefill, and the fraction of them that was reached. If the GPU's limits are unknown, the points are
    returned unchanged.
    """
    device, model = device_of(record), Model.read(record.settings["config"])
    if device is None:
        return [dict(row) for row in record.points]
    return [dict(row) | _limits(row, device, model, record.settings) for row in record.points]


def _limits(row: PointRow, device: GpuSpec, model: Model, settings: Mapping[str, Any]) -> dict[str, Any]:
    prompt, tokens, streams = settings["prompt"], settings["tokens"], row["streams"]
    adapters = [model.adapter(rank, TARGETS) for rank in RANKS[: BY_NAME[row["scenario"]].adapters]]
    most = tokens_per_second(model, device, streams, prompt, tokens, adapters)
    step = decode_step(model, streams, prompt + tokens / 2, adapters)
    first = prefill(model, prompt, sum(adapters) / len(adapters) if adapters else 0.0)
    found: dict[str, Any] = {
        "limit_tokens_per_second": round(most, 1),
        "limit_decode_step_ms": round(step.seconds(device) * 1e3, 3),
        "limit_decode_by": step.bound(device),
        "limit_prefill_ms": round(first.seconds(device) * 1e3, 2),
    }
    if row["tokens_per_second"]:
        found["share_of_limit"] = round(row["tokens_per_second"] / most, 3)
    if row["decode_step_ms"]:
        found["decode_share_of_limit"] = round(step.seconds(device) * 1e3 / row["decode_step_ms"], 3)
    return found


def goals(rows: Sequence[PointRow]) -> list[Goal]:
    """Return the project's performance goals for an H200, each with its worst value among the measuring
    points.
    """
    by = {Point(row["server"], row["scenario"], row["streams"]): row for row in rows}

    def rate(point: Point) -> float | None:
        return by[point]["tokens_per_second"] if point in by else None

    def within(scenarios: Iterable[str]) -> list[tuple[str, float | None]]:
        """For each measuring point of a scenario in `scenarios`, return OneSeek's token rate divided by its
        rate in the scenario `base` with as many streams.
        """
        return [
            _ratio(f"{point.scenario}, {point.streams}", rate(point), rate(_as(point, scenario="base")))
            for point in by
            if point.server == "oneseek" and point.scenario in scenarios
        ]

    def beside(keep: Callable[[Point], bool]) -> list[tuple[str, float | None]]:
        """For each measuring point for which `keep` returns true, return OneSeek's token rate divided by
        vLLM's.
        """
        return [
            _ratio(f"{point.scenario}, {point.streams}", rate(point), rate(_as(point, server="vllm")))
            for point in by
            if point.server == "oneseek" and keep(point)
        ]

    decode = by.get(Point("oneseek", "base", 64), {}).get("decode_share_of_limit")
    answered = sum(row["requests"] for row in rows)
    failed = sum(row["failed"] for row in rows)
    return [
        _goal("mixed adapters / base only", 0.92, within(("two", "eight"))),
        _goal("idle LoRA / base only", 0.985, within(("idle",))),
        _goal("OneSeek / vLLM at every point", 1.0, beside(lambda point: True)),
        _goal("OneSeek / vLLM at 256 streams", 1.15, beside(lambda point: point.streams == 256)),
        _goal("decode step at 64 streams, share of limit", 0.60, [("base, 64", decode)]),
        _goal("requests answered in full", 1.0, [("all", 1 - failed / answered if answered else None)]),
    ]


def _as(point: Point, server: str | None = None, scenario: str | None = None) -> Point:
    return Point(server or point.server, scenario or point.scenario, point.streams)


def _ratio(where: str, over: float | None, under: float | None) -> tuple[str, float | None]:
    return where, over / under if over is not None and under else None


def _goal(name: str, least: float, measured: Sequence[tuple[str, float | None]]) -> Goal:
    known = [(value, where) for where, value in measured if value is not None]
    worst, where = min(known, default=(None, ""))
    return Goal(name, least, worst, where, len(known))


HEAD = (
    "scenario  streams  server   tokens/s  of limit  TTFT p50/p95/p99 ms     ITL p50/p95/p99 ms    "
    "decode step ms  of limit  memory MiB  failed  OneSeek/vLLM"
)


def report_lines(record: ResultFile) -> list[str]:
    """Return the report as lines of text: the device with its limits, every measuring point, the performance
    goals, and notes about measuring points that got fewer rounds or were left out.
    """
    rows, device = with_limits(record), device_of(record)
    gpu = record.host["gpu"]
    name = gpu["name"] if gpu else f"no GPU ({record.host['cpu']})"
    told = f"{device.bandwidth:g} GB/s, {device.tflops:g} TFLOP/s" if device else "limit unknown"
    order = [scenario.name for scenario in SCENARIOS]
    rates = {(row["server"], row["scenario"], row["streams"]): row["tokens_per_second"] for row in rows}
    lines = ["", f"{name}: {told}", "", HEAD]
    for row in sorted(rows, key=lambda row: (order.index(row["scenario"]), row["streams"], row["server"])):
        other = rates.get(("vllm", row["scenario"], row["streams"])) if row["server"] == "oneseek" else None
        lines.append(_line(row, other))
    lines += ["", "goal on an H200                               least    worst  at               points"]
    for goal in goals(rows):
        worst, told = f"{goal.worst:.3f}" if goal.worst is not None else "-", _verdict(goal, record)
        lines.append(f"{goal.name:<44}{goal.least:>7.3f}{worst:>9}  {goal.where:<17}{goal.points:>6}  {told}")
    return [*lines, "", *record.notes]


def _verdict(goal: Goal, record: ResultFile) -> str:
    return goal.verdict if record.host["gpu"] else "not judged without a GPU"


def _line(row: PointRow, other: float | None) -> str:
    def share(name: str) -> str:
        return f"{row[name]:.0%}" if row.get(name) is not None else "unknown"

    def three(found: Mapping[str, float | None]) -> str:
        return "/".join("-" if value is None else f"{value:.4g}" for value in found.values())

    rate, step = row["tokens_per_second"], row["decode_step_ms"]
    ratio = f"{rate / other:.3f}" if rate and other else ""
    return (
        f"{row['scenario']:<8}{row['streams']:>9}  {row['server']:<8}{_or_dash(rate, '.1f'):>9}"
        f"{share('share_of_limit'):>10}  {three(row['ttft_ms']):<22}  {three(row['itl_ms']):<20}"
        f"{_or_dash(step, '.3g'):>16}{share('decode_share_of_limit'):>10}{row['memory_mib']:>12}"
        f"{row['failed']:>8}  {ratio:>12}"
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def summary(record: ResultFile) -> dict[str, Any]:
    """Return as one JSON object: the results, the device's theoretical limits, and whether each performance
    goal is met.
    """
    rows, device = with_limits(record), device_of(record)
    judged = {goal.name: asdict(goal) | {"verdict": _verdict(goal, record)} for goal in goals(rows)}
    for goal in judged.values():
        del goal["name"]
    return {
        "bench": "gpu",
        "host": record.host,
        "limits": asdict(device) | {"table": TABLE_VERSION} if device else "unknown",
        "settings": record.settings,
        "commands": record.commands,
        "goals": judged,
        "notes": record.notes,
        "starts": record.starts,
        "points": rows,
    }
