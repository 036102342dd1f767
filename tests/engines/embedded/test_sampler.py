"""The sampler against a slow, obvious reference in float64, alone and in company."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.engines.embedded.sampler import Choice, Sampler
from server.engines.embedded.uniform import uniforms
from server.request import Sampling

Logits = NDArray[np.float32]
NO_ENDS: frozenset[int] = frozenset()


def reference_logits(
    logits: Logits, sampling: Sampling, prompt: Sequence[int], output: Sequence[int]
) -> list[float]:
    values = [float(value) for value in logits]
    for token, bias in sampling.logit_bias.items():
        values[token] += bias
    for token in set(prompt) | set(output):
        values[token] = (
            values[token] / sampling.repetition_penalty
            if values[token] > 0
            else values[token] * sampling.repetition_penalty
        )
    for token in set(output):
        values[token] -= sampling.frequency_penalty * list(output).count(token) + sampling.presence_penalty
    return values


def reference_kept(values: Sequence[float], sampling: Sampling, slack: float) -> dict[int, float]:
    """Token → weight of what stays in the draw, with every border moved outwards by `slack` (relative)."""
    highest = max(values)
    weights = {i: np.exp((value - highest) / sampling.temperature) for i, value in enumerate(values)}
    kept = {i: w for i, w in weights.items() if w >= sampling.min_p * (1 - slack)}
    ordered = sorted(kept.values(), reverse=True)
    if 0 < sampling.top_k < len(ordered):
        kept = {i: w for i, w in kept.items() if w >= ordered[sampling.top_k - 1] * (1 - slack)}
    if sampling.top_p < 1.0:
        mass = sum(kept.values())
        running = border = 0.0
        for weight in sorted(kept.values(), reverse=True):
            border = weight
            running += weight
            if running >= mass * sampling.top_p * (1 + slack):
                break
        kept = {i: w for i, w in kept.items() if w >= border * (1 - slack)}
    return kept


def reference_allows(kept: dict[int, float], uniform: float, token: int, slack: float) -> bool:
    """Whether `token` is where the cumulative distribution, in id order, passes `uniform`."""
    total = sum(kept.values())
    below = sum(weight for i, weight in kept.items() if i < token) / total
    upto = below + kept.get(token, 0.0) / total
    return token in kept and below - slack <= uniform <= upto + slack


def logits_of(rows: int, vocabulary: int, seed: int = 0, spread: float = 3.0) -> Logits:
    return (np.random.default_rng(seed).standard_normal((rows, vocabulary)) * spread).astype(np.float32)


def sample_one(logits: Logits, sampling: Sampling, prompt: Sequence[int] = ()) -> Choice:
    sampler = Sampler(len(logits), NO_ENDS)
    return sampler.sample(logits[None].copy(), [sampler.state(sampling, prompt)])[0]


@st.composite
def samplings(draw: st.DrawFn, vocabulary: int) -> Sampling:
    tokens = st.integers(0, vocabulary - 1)
    return Sampling(
        max_tokens=8,
        temperature=draw(st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.7])),
        top_p=draw(st.sampled_from([1.0, 0.95, 0.6, 0.1])),
        top_k=draw(st.sampled_from([0, 1, 2, 7, vocabulary - 1, vocabulary, vocabulary + 5])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.02, 0.4])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.8])),
        presence_penalty=draw(st.sampled_from([0.0, 0.7, -1.0])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.4, -0.5])),
        logit_bias=draw(st.dictionaries(tokens, st.sampled_from([-100.0, -1.5, 2.0, 100.0]), max_size=3)),
        seed=draw(st.integers(-(2**63), 2**64 - 1)),
        logprobs=draw(st.sampled_from([None, 0, 3])),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, list[Sampling], list[list[int]], Logits]:
    vocabulary = draw(st.sampled_from([9, 129, 700]))
    many = draw(st.lists(samplings(vocabulary), min_size=1, max_size=6))
    prompts = [draw(st.lists(st.integers(0, vocabulary - 1), max_size=5)) for _ in many]
    # A coarse grid, so that ties happen.
    grid = np.random.default_rng(draw(st.integers(0, 10**6))).integers(-32, 33, (4, len(many), vocabulary))
    return vocabulary, many, prompts, (grid / 8).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(batches())
def test_every_choice_agrees_with_the_reference(
    batch: tuple[int, list[Sampling], list[list[int]], Logits],
) -> None:
    vocabulary, many, prompts, steps = batch
    sampler = Sampler(vocabulary, NO_ENDS)
    states = [sampler.state(sampling, prompt) for sampling, prompt in zip(many, prompts, strict=True)]
    outputs: list[list[int]] = [[] for _ in many]
    for index, logits in enumerate(steps):
        choices = sampler.sample(logits.copy(), states)
        for row, choice in enumerate(choices):
            values = reference_logits(logits[row], many[row], prompts[row], outputs[row])
            if many[row].greedy:
                assert values[choice.token_id] >= max(values) - 1e-4
            else:
                kept = reference_kept(values, many[row], slack=1e-4)
                seed = np.array([many[row].seed % 2**64 if many[row].seed is not None else 0], np.uint64)
                uniform = float(uniforms(seed, np.array([index], np.uint64))[0])
                strict = reference_kept(values, many[row], slack=-1e-4)
                slack = 1e-4 + abs(1 - sum(strict.values()) / sum(kept.values()))
                assert reference_allows(kept, uniform, choice.token_id, slack)
            assert (choice.logprob is None) == (many[row].logprobs is None)
            outputs[row].append(choice.token_id)
