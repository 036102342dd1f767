"""The self-test of a device: runs the same short prompts on the device and the CPU, and compares the logits.

`exercise` computes a prompt in two chunks, a second prompt without adapter, and a few decode steps of both
together. Its tokens are fixed and do not depend on the logits. `reference_logits` provides the CPU's logits.
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
"""Largest difference between a device's logit and the CPU's that passes the self-test, by precision. Both
compute with the same rounded weights, so a difference comes from arithmetic alone. In float32, devices differ
from the CPU by 2e-6 to 2e-5.
"""
HALF_SHARE = 0.04
"""For float16 graphs: largest allowed difference as a fraction of the largest logit, if that is more than the
value in `THRESHOLDS`. The CPU sums in float32, but a device may sum in float16, with errors proportional to
the logits. Measured: 0.7 % on the mini base model, 1.1 % and 2.0 % on random base models of 28 and 152
million weights.
"""
PROMPT = 14
"""Number of tokens of the self-test's prompt; fewer if the context length is smaller."""
BESIDE = 5
"""Number of tokens of the self-test's second prompt, which runs without adapter."""
DECODES = 3
EXERCISE = 1
"""Version of the self-test. Increase it with every change of `exercise`, so that saved reference logits are
computed again.
"""


class DeviceError(EngineError):
    """A device cannot be used. `reason` is the cause in one word: absent, failed, memory or logits."""

    def __init__(self, reason: FallbackReason, message: str) -> None:
        super().__init__(message)
        self.reason: FallbackReason = reason


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Result of the self-test: how much a device's logits differ from the CPU's."""

    subject: str
    """What was tested: the string `the base` for the base model, or `the adapter`."""
    device: str
    precision: Precision
    threshold: float
    """Largest difference between the logits that passes the self-test."""
    difference: float
    """Largest absolute difference between a logit of the device and of the CPU; infinite if one is not
    finite.
    """
    agreed: int
    """Number of positions at which device and CPU have the same most likely token."""
    positions: int

    @property
    def passed(self) -> bool:
        """True if the logits differ by at most the threshold, so that the device may be used."""
        return self.difference <= self.threshold

    def __str__(self) -> str:
        if not math.isfinite(self.difference):
            return f"{self.device} computes logits that are not finite numbers for {self.subject}"
        return (
            f"{self.device} computes logits for {self.subject} {'within' if self.passed else 'off by'} "
            f"{self.difference:.2g} of the CPU's (limit for {self.precision}: {self.threshold:.2g}); "
            f"the most likely token is the same at {self.agreed} of {self.positions} positions"
        )


def precision_of(dtype: Dtype, quantize: Quantize) -> Precision:
    """Return the key in `THRESHOLDS` for a graph: its quantisation, or its number format if it is not
    quantised.
    """
    if quantize == "none":
        return dtype
    return cast("Precision", "int4" if quantize == "int4" else "int8")


def exercise(
    runner: Runner, rows: Sequence[int], context: int, adapter_mix: AdapterMix
) -> NDArray[np.float32]:
    """Run the self-test in one or two free KV cache slots `rows` (ascending), and empty them.

    Returns logits [positions, vocabulary]. The second slot runs without adapters; it is skipped if only one
    slot is given.
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
    """Compute the logits that `exercise` should return, but with a single prefill for each of its one or two
    slots.
    """
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
    # Same order as in `exercise`: both prompts, then the decodes of the two rows alternately.
    ordered = [*found[: len(at) - len(decodes)], beside[0]]
    for step in range(len(decodes)):
        ordered += [found[step - len(decodes)], *beside[1 + step : 2 + step]]
    return np.stack(ordered)


def threshold_of(dtype: Dtype, quantize: Quantize, reference: NDArray[np.float32]) -> float:
    """Return the largest difference from the CPU's logits (`reference`) that passes the self-test."""
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
    """Compare a device's logits [positions, vocabulary] (`found`) with the CPU's (`reference`).

    Raises `ValueError` if the shapes differ or the CPU's logits are not finite.
    """
    if found.shape != reference.shape:
        raise ValueError(
            f"the device self-test cannot compare the device's logits of shape {found.shape} with the "
            f"CPU's logits of shape {reference.shape}; the shapes must be the same"
        )
    if not np.isfinite(reference).all():
        raise ValueError(
            f"the CPU computes logits that are not finite numbers for {subject}, so the device cannot be "
            "tested; check the weights"
        )
    difference = float(np.abs(found - reference).max()) if np.isfinite(found).all() else math.inf
    agreed = int((found.argmax(axis=1) == reference.argmax(axis=1)).sum())
    precision, threshold = precision_of(dtype, quantize), threshold_of(dtype, quantize, reference)
    return SelfTest(subject, device, precision, threshold, difference, agreed, len(found))


def _script(vocabulary: int, context: int) -> tuple[list[int], list[int], int]:
    """Return the self-test's prompt, the tokens that are decoded after it, and the index at which the prompt
    is split into chunks.
    """
    prompt = _tokens(vocabulary, max(1, min(PROMPT, context - DECODES)))
    decodes = [prompt[step % len(prompt)] for step in range(min(DECODES, context - len(prompt)))]
    return prompt, decodes, 2 * len(prompt) // 3


def _tokens(vocabulary: int, count: int) -> list[int]:
    """Return `count` fixed token ids that are spread over the vocabulary (multiplicative hashing)."""
    return [(index * 2654435761 + 97) % vocabulary for index in range(1, count + 1)]
