"""The times of a server's engine steps, which are measured, stored as JSON, and used by the simulation of a
fleet.
"""

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
    """Seconds that a server needs for an engine step, depending on what the step contains, and for other
    work: HTTP handling before the engine, and loading an adapter.
    """

    rows: tuple[int, ...]
    """Numbers of sequences in a decode step for which the time was measured, in ascending order."""
    decode: tuple[float, ...]
    """Seconds of a decode step for each number of sequences in `rows`."""
    prompt_token: float
    """Seconds by which each prompt token prolongs a step."""
    chunk: float
    """Seconds by which each chunk of a prompt prolongs a step, besides the time for its tokens."""
    overhead: float
    """Seconds between the arrival of a request and its arrival at the engine: HTTP, routing, chat template,
    tokenizing.
    """
    load: float = 0.0
    """Seconds to load an adapter that the server does not hold."""

    def __post_init__(self) -> None:
        if not self.rows or len(self.rows) != len(self.decode) or list(self.rows) != sorted(set(self.rows)):
            raise ValueError(
                f"the step times are invalid: rows {self.rows} (numbers of sequences per decode step) must "
                "be ascending, and decode must have one time for each; measure them again with --measure"
            )
        if self.rows[0] < 1 or min(self.decode) <= 0:
            raise ValueError(
                f"the step times are invalid: rows {self.rows} (numbers of sequences per decode step) and "
                f"decode {self.decode} (their seconds) must all be above 0; measure them again with "
                "--measure"
            )
        for name in ("prompt_token", "chunk", "overhead", "load"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"the step time {name} is {getattr(self, name)} seconds, which is invalid; use a finite "
                    "number, 0 or more"
                )

    def decode_step(self, rows: int) -> float:
        """Return the seconds of a decode step for `rows` sequences. 0 for no sequences.

        Between the measured numbers of sequences the time is interpolated linearly. Beyond the largest it
        continues with the last slope, which is at least 0.
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
        """Return the seconds of a step that decodes `rows` sequences and computes `prompt_tokens` prompt
        tokens in `chunks` chunks.
        """
        return self.decode_step(rows) + chunks * self.chunk + prompt_tokens * self.prompt_token


def fit(decode: Mapping[int, float], first: Sequence[tuple[int, float]], load: float = 0.0) -> StepTimes:
    """Compute step times from measurements: `decode` maps the number of streams to the seconds of a decode
    step, and `first` has pairs of prompt tokens and TTFT on an idle server.

    TTFT is fitted as a line over prompt tokens by least squares. The part that does not depend on the tokens
    is the overhead plus one engine step, which is assumed to take as long as a decode step of one sequence.
    Raises `ValueError` unless at least two prompts differ in length.
    """
    if len({tokens for tokens, _ in first}) < 2:
        raise ValueError(
            f"all {len(first)} measured prompts have the same number of tokens, but step times can be "
            "computed only from prompts of two or more lengths"
        )
    rows = tuple(sorted(decode))
    tokens, seconds = (np.array(column, dtype=float) for column in zip(*first, strict=True))
    slope = max(0.0, float(np.polyfit(tokens, seconds, 1)[0]))
    intercept = max(0.0, float(np.median(seconds - slope * tokens)))
    chunk = min(intercept, decode[rows[0]])
    return StepTimes(rows, tuple(decode[row] for row in rows), slope, chunk, intercept - chunk, load)


def write_times(path: Path, times: StepTimes, about: Mapping[str, object]) -> None:
    """Write measured step times to a file, with a description of the machine and the command."""
    document = {"schema": SCHEMA, **about, "times": asdict(times)}
    path.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")


def read_times(path: Path) -> StepTimes:
    """Read a file of step times that `write_times` wrote. Raises `ValueError` if the file is
    anything else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        held = document["times"] | {name: tuple(document["times"][name]) for name in ("rows", "decode")}
        return StepTimes(**held)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a file of step times ({error}); measure them with --measure {path}"
        ) from None
