"""The times of a replica's steps: measured on a server, stored as JSON, and used by the simulation."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

SCHEMA = "oneseek-bench-times/1"


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds that a replica needs for its work, depending on what a step contains."""

    rows: tuple[int, ...]
    """Numbers of sequences that decode together, in ascending order."""
    decode: tuple[float, ...]
    """Seconds of a decode step for each number in `rows`."""
    prompt_token: float
    """Seconds that each prompt token adds to a step."""
    chunk: float
    """Seconds that each part of a prompt adds to a step, besides the time for its tokens."""
    overhead: float
    """Seconds between a request's arrival and the engine: HTTP, routing, chat template, tokenizing."""
    load: float = 0.0
    """Seconds to load an adapter that is not resident."""

    def __post_init__(self) -> None:
        if not self.rows or len(self.rows) != len(self.decode) or list(self.rows) != sorted(set(self.rows)):
            raise ValueError(
                f"rows {self.rows} are invalid; give at least one, in ascending order, each with its seconds"
            )
        if self.rows[0] < 1 or min(self.decode) <= 0:
            raise ValueError(f"rows {self.rows}, decode {self.decode} are invalid; all must be above 0")
        for name in ("prompt_token", "chunk", "overhead", "load"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} is negative; use 0 or more")

    def decode_step(self, rows: int) -> float:
        """Seconds of a decode step of `rows` sequences; 0 for none.

        Interpolates between the measured points. Beyond the last two it goes on as between them, and never
        falls.
        """
        if rows <= 0:
            return 0.0
        at = bisect_left(self.rows, rows)
        if at < len(self.rows) and (self.rows[at] == rows or at == 0):
            return self.decode[at]
        at = min(at, len(self.rows) - 1)
        if at == 0:
            return self.decode[0] * rows / self.rows[0]
        slope = (self.decode[at] - self.decode[at - 1]) / (self.rows[at] - self.rows[at - 1])
        return self.decode[at - 1] + max(0.0, slope) * (rows - self.rows[at - 1])

    def step(self, rows: int, chunks: int, prompt_tokens: int) -> float:
        """Seconds of a step that decodes `rows` sequences beside `chunks` parts of prompts."""
        return self.decode_step(rows) + chunks * self.chunk + prompt_tokens * self.prompt_token


def fit(decode: Mapping[int, float], first: Sequence[tuple[int, float]], load: float = 0.0) -> StepTimes:
    """From median gaps by number of streams, and (prompt tokens, TTFT) of requests on an idle server.

    TTFT is a line over prompt tokens, by least squares. Its intercept is the overhead and one run of the
    engine, which is taken to cost what a decode step of one sequence does. Raises `ValueError` for fewer
    than two prompts.
    """
    if len({tokens for tokens, _ in first}) < 2:
        raise ValueError(
            f"{len(first)} prompts were measured, but at least two of different length are needed"
        )
    rows = tuple(sorted(decode))
    tokens, seconds = (np.array(column, dtype=float) for column in zip(*first, strict=True))
    slope = max(0.0, float(np.polyfit(tokens, seconds, 1)[0]))
    intercept = max(0.0, float(np.median(seconds - slope * tokens)))
    chunk = min(intercept, decode[rows[0]])
    return StepTimes(rows, tuple(decode[row] for row in rows), slope, chunk, intercept - chunk, load)


def write_times(path: Path, times: StepTimes, about: Mapping[str, object]) -> None:
    """Write measured times to a file, with a description of where they were measured."""
    document = {"schema": SCHEMA, **about, "times": asdict(times)}
    path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def read_times(path: Path) -> StepTimes:
    """Read a file that `write_times` wrote. Raises `ValueError` if the file is anything else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']!r}")
        held = document["times"] | {name: tuple(document["times"][name]) for name in ("rows", "decode")}
        return StepTimes(**held)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no step times ({error}); measure them: --measure {path}") from None
