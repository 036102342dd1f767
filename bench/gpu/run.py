"""Run the measuring points of a GPU benchmark: start each server once, measure its points, and record the
results.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.gpu.budget import TimeBudget
from bench.gpu.contenders import ADMIN_KEY, Contenders
from bench.gpu.models import VERSIONS
from bench.gpu.progress import OUT_OF_TIME, print_progress
from bench.gpu.record import ResultFile
from bench.gpu.scenarios import BY_NAME, SWAPPED, Length, Point, jobs, wanted_rounds, warm_up
from bench.gpu.swap import Swap, swap_adapter, timed_swap
from bench.host import Gpu, used_mib, wait_until_free
from bench.load.closed_loop import LoadResult, closed_loop
from bench.load.steady import SteadyFigures, steady
from bench.servers import Server

LONGEST_ANSWER = 180.0
"""Seconds after which a request counts as failed, so that a hanging server does not use up the time
budget.
"""


@dataclass(slots=True)
class GpuRun:
    """A run over the measuring points that are not in the result file yet."""

    record: ResultFile
    contenders: Contenders
    budget: TimeBudget
    gpu: Gpu | None
    length: Length
    vocabulary: int
    todo: list[Point]
    swaps: int = 0

    def all(self) -> None:
        """Measure all remaining measuring points: start each server that they need, measure its points, and
        stop it. Leave out measuring points for which the time budget is too short.
        """
        before = self.gpu.used_mib() if self.gpu else 0
        if before > 1024:
            self._note(
                f"{before} MiB of GPU memory were in use before the first start, so results may be wrong"
            )
        notes = self.record.notes  # what an earlier run left out is to do now
        notes[:] = [note for note in notes if not note.startswith(OUT_OF_TIME)]
        while self.todo:
            if not self.budget.fits(self.todo[0], fresh=True):
                self._note(
                    f"{OUT_OF_TIME}: {len(self.todo)} measuring points are left out, from {self.todo[0]} on"
                )
                return
            here = [point for point in self.todo if point.start == self.todo[0].start]
            try:
                self._start(here)
            except RuntimeError as error:
                self._fault(here, error)
            self.todo = [point for point in self.todo if point not in here]
            if self.gpu:
                wait_until_free(self.gpu, before)

    def _start(self, here: Sequence[Point]) -> None:
        server, start = here[0].start
        print_progress(f"starting {server} ({start})")
        with ExitStack() as stack:
            began = time.monotonic()
            running = stack.enter_context(self.contenders.start(server, start))
            took = time.monotonic() - began
            self.budget.starts.append(took)
            self.record.starts.append(
                {"server": server, "start": start, "seconds": round(took, 1)}
                | self.contenders.memory_figures(server, start)
            )
            self.record.save()
            warm = ""
            for point in here:
                if not self.budget.fits(point, fresh=False):
                    self._note(f"{OUT_OF_TIME}: the measuring point {point} is left out")
                    continue
                rounds = self.budget.rounds(self.todo[self.todo.index(point) :], fresh=False)
                if point.scenario != warm:
                    if BY_NAME[point.scenario].swaps:
                        uvloop.run(swap_adapter(running.url, SWAPPED, self._next_version(), ADMIN_KEY))
                    self._warm(running, max(o.streams for o in here if o.scenario == point.scenario), point)
                    warm = point.scenario
                if rounds[point] < wanted_rounds(point.streams):
                    self._note(
                        f"{point}: only {rounds[point]} rounds, because little of the time budget is left"
                    )
                self._point(running, point, rounds[point])

    def _warm(self, server: Server, streams: int, point: Point) -> None:
        work = warm_up(replace(point, streams=streams), self.length, self.vocabulary)
        uvloop.run(closed_loop(server.url, work, min(len(work), streams), LONGEST_ANSWER))

    def _point(self, server: Server, point: Point, rounds: int) -> None:
        work = jobs(point, rounds, self.length, self.vocabulary)
        hits, busy, began = server.prefix_hits(), time.process_time(), time.monotonic()
        swaps: list[Swap] = []

        async def swap() -> None:
            swaps.append(await timed_swap(server.url, SWAPPED, self._next_version(), ADMIN_KEY))

        halfway = swap if BY_NAME[point.scenario].swaps else None
        outcome = uvloop.run(closed_loop(server.url, work, point.streams, LONGEST_ANSWER, halfway))
        took = time.monotonic() - began
        self.budget.saw(point, rounds, took)
        after = server.prefix_hits()
        row = asdict(point) | {"rounds": rounds, "seconds": round(took, 2)}
        row |= figures(outcome, point.streams)
        for done in swaps:
            row["swap"] = done.figures(outcome)
        row["memory_mib"] = used_mib(self.gpu, server.process)
        row["client_cpu"] = round((time.process_time() - busy) / took, 2)
        row["prefix_hits"] = None if hits is None or after is None else after - hits
        self.record.points.append(row)
        self.record.save()
        rate = row["tokens_per_second"]
        print_progress(
            f"{point}: {rate} tokens/s, {row['failed']} failed, "
            f"{rounds} rounds in {took:.1f} s; {self.budget.left:.0f} s of the budget left"
        )
        if not server.alive:
            raise RuntimeError(f"the server ended during the measurement of {point}: {row['faults']}")

    def _next_version(self) -> Path:
        """Return the folder of the version of the adapter `SWAPPED` to serve next. The two versions
        alternate.
        """
        self.swaps += 1
        return self.contenders.work / VERSIONS[self.swaps % len(VERSIONS)]

    def _fault(self, here: Sequence[Point], error: RuntimeError) -> None:
        server, start = here[0].start
        self.record.starts.append({"server": server, "start": start, "fault": str(error)[-3000:]})
        self._note(f"{server} ({start}) did not start, or stopped early; see starts in {self.record.path}")

    def _note(self, text: str) -> None:
        self.record.notes.append(text)
        self.record.save()
        print_progress(text)


def figures(outcome: LoadResult, streams: int) -> dict[str, Any]:
    """Return the figures of a measuring point, with times in milliseconds. If the run was too short for a
    steady state, times and rates are None.
    """
    found = steady(outcome.traces, streams)
    percentiles = ("p50", "p95", "p99")
    row: dict[str, Any] = {
        "requests": max(sum(outcome.statuses.values()), len(outcome.traces) + len(outcome.faults)),
        "failed": len(outcome.faults),
        "faults": outcome.faults[:3],
        "tokens_per_second": round(found.tokens_per_second, 1) if found else None,
        "window_seconds": round(found.seconds, 2) if found else None,
        "decode_step_ms": _step(found),
    }
    for name, values in (("ttft_ms", found.first if found else []), ("itl_ms", found.gaps if found else [])):
        told = np.percentile(values, (50, 95, 99)) * 1e3 if len(values) else [None] * 3
        row[name] = {
            key: None if value is None else round(float(value), 2)
            for key, value in zip(percentiles, told, strict=True)
        }
    return row


def _step(found: SteadyFigures | None) -> float | None:
    return round(found.decode_step * 1e3, 3) if found and found.decode_step else None
