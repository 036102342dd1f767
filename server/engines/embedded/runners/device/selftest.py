"""Whether a device computes what the CPU does: the same short run on both, logits against logits.

Pure over two `Runner`s. `exercise` is that run: a prompt in two chunks, another row with another adapter
beside it, a few decodes of both together, with tokens that do not depend on what is computed. Where the CPU's
logits come from is `reference_logits`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.runners.protocol import DecodeRow, Runner
from server.errors import EngineError
from server.metrics.engine_state import FallbackReason
from server.request import AdapterMix

Precision = Literal["fp32", "fp16", "int8", "int4"]

THRESHOLDS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.15, "int4": 0.15}
"""Greatest difference of a logit that is let pass. Both sides have the same weights, rounded alike, so it is
the arithmetic alone. In float32 devices differ by 2e-6 to 2e-5."""
HALF_SHARE = 0.04
"""Where weights and sums are float16: what is let pass as a share of the largest logit, if that is more than
the threshold. The CPU does its sums in float32, a device may not, and that rounding is in proportion. Seen:
0.7 % on the mini base, 1.1 % and 2.0 % on random ones of 28 and 152 million weights."""
PROMPT = 14
"""Tokens of the prompt, where the context holds them."""
BESIDE = 5
"""Tokens of the row beside."""
DECODES = 3
EXERCISE = 1
"""Raised with every change of what `exercise` runs: logits that are kept are of no use then."""


class DeviceError(EngineError):
    """A device cannot be used; `reason` says why in a word."""

    def __init__(self, reason: FallbackReason, message: str) -> None:
        super().__init__(message)
        self.reason: FallbackReason = reason


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What came of one comparison."""

    subject: str
    """`the base`, or an adapter's digest."""
    device: str
    precision: Precision
    threshold: float
    """What the difference may be at most."""
    difference: float
    """Greatest absolute difference of a logit; infinite where one is not a number."""
    agreed: int
    """Positions whose likeliest token is the same on both."""
    positions: int

    @property
    def passed(self) -> bool:
        """Whether the device may be used."""
        return self.difference <= self.threshold

    def __str__(self) -> str:
        if not math.isfinite(self.difference):
            return f"{self.device} computes {self.subject} with logits that are no numbers"
        return (
            f"{self.device} computes {self.subject} {'within' if self.passed else 'off by'} "
            f"{self.difference:.2g} of the CPU's logits, where {self.threshold:.2g} is the most in "
            f"{self.precision}; {self.agreed} of {self.positions} likeliest tokens agree"
        )


def precision_of(dtype: Dtype, quantize: Quantize) -> Precision:
    """What a graph's threshold goes by: its weights where they are quantised, else what it computes in."""
    if quantize == "none":
        return dtype
    return cast("Precision", "int4" if quantize == "int4" else "int8")


def exercise(
    runner: Runner, rows: Sequence[int], context: int, adapter_mix: AdapterMix
) -> NDArray[np.float32]:
    """Run the exercise in one or two `rows`, ascending and free, and release them; logits [positions, vocab].

    The second row, with the base alone, is left out where only one is given.
    """
    prompt, decodes, cut = _script(runner.vocabulary, context)
    first, beside = rows[0], rows[1] if len(rows) > 1 else None
    found: list[NDArray[np.float32]] = []
    try:
        if cut:
            found.append(
                runner.prefill(first, 0, prompt[:cut], adapter_mix, sorted({cut // 2, cut - 1})).copy()
            )
        rest = prompt[cut:]
        found.append(runner.prefill(first, cut, rest, adapter_mix, [len(rest) - 1]).copy())
        short = prompt[:BESIDE]
        if beside is not None:
            found.append(runner.prefill(beside, 0, short, (), [len(short) - 1]).copy())
        for step, token in enumerate(decodes):
            batch = [DecodeRow(first, token, len(prompt) + step, adapter_mix)]
            if beside is not None and len(short) + step < context:
                batch.append(DecodeRow(beside, token, len(short) + step, ()))
            found.append(runner.decode(batch).copy())
    finally:
        for row in rows[:2]:
            runner.release(row)
    return np.concatenate(found)


def foretell(runner: Runner, rows: int, context: int, adapter_mix: AdapterMix) -> NDArray[np.float32]:
    """What `exercise` answers with, computed in one run for each of its one or two rows."""
    prompt, decodes, cut = _script(runner.vocabulary, context)
    at = [*(sorted({cut // 2, cut - 1}) if cut else []), *range(len(prompt) - 1, len(prompt) + len(decodes))]
    found = runner.prefill(0, 0, [*prompt, *decodes], adapter_mix, at).copy()
    runner.release(0)
    if rows == 1:
        return found
    short = prompt[:BESIDE]
    more = decodes[: context - len(short)]
    beside = runner.prefill(0, 0, [*short, *more], (), range(len(short) - 1, len(short) + len(more))).copy()
    runner.release(0)
    # In the order of the exercise: both prompts, then the two rows by turns.
    ordered = [*found[: len(at) - len(decodes)], beside[0]]
    for step in range(len(decodes)):
        ordered += [found[step - len(decodes)], *beside[1 + step : 2 + step]]
    return np.stack(ordered)


def threshold_of(dtype: Dtype, quantize: Quantize, reference: NDArray[np.float32]) -> float:
    """What a device may differ by from these logits of the CPU's."""
    least = THRESHOLDS[precision_of(dtype, quantize)]
    halves = dtype == "fp16" and quantize == "none"
    return max(least, HALF_SHARE * float(np.abs(reference).max())) if halves else least


def judge_logits(
    subject: str,
    device: str,
    dtype: Dtype,
    quantize: Quantize,
    found: NDArray[np.float32],
    reference: NDArray[np.float32],
) -> SelfTest:
    """Judge a device's logits [positions, vocabulary] by the CPU's. Raises `ValueError` for other shapes."""
    if found.shape != reference.shape:
        raise ValueError(f"logits {found.shape} cannot be compared with {reference.shape}")
    if not np.isfinite(reference).all():
        raise ValueError(f"the CPU computes {subject} with logits that are no numbers")
    difference = float(np.abs(found - reference).max()) if np.isfinite(found).all() else math.inf
    agreed = int((found.argmax(axis=1) == reference.argmax(axis=1)).sum())
    precision, threshold = precision_of(dtype, quantize), threshold_of(dtype, quantize, reference)
    return SelfTest(subject, device, precision, threshold, difference, agreed, len(found))


def _script(vocabulary: int, context: int) -> tuple[list[int], list[int], int]:
    """The prompt, the tokens decoded after it, and where the prompt is cut in two."""
    prompt = _tokens(vocabulary, max(1, min(PROMPT, context - DECODES)))
    decodes = [prompt[step % len(prompt)] for step in range(min(DECODES, context - len(prompt)))]
    return prompt, decodes, 2 * len(prompt) // 3


def _tokens(vocabulary: int, count: int) -> list[int]:
    """Tokens from all over the vocabulary, the same ones every time (a multiplicative walk)."""
    return [(index * 2654435761 + 97) % vocabulary for index in range(1, count + 1)]
