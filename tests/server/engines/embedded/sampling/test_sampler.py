"""The sampler against a slow, obvious reference in float64, alone and in company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.embedded.sampling.penalties import Penalties, SeenTokens
from server.engines.embedded.sampling.sampler import (
    BadLogitsError,
    BadRowsError,
    SampledToken,
    Sampler,
    SamplerState,
)
from server.engines.embedded.sampling.truncation import Truncation, truncate
from server.engines.embedded.sampling.uniform import uniforms
from server.request import Sampling
from tests.server.engines.embedded.sampling.sampled import NO_ENDS, Logits, logits_of, sample_one


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


MIXED = [
    Sampling(max_tokens=9, temperature=0.0),
    Sampling(max_tokens=9, seed=1),
    Sampling(max_tokens=9, seed=2, temperature=0.8, top_p=0.9),
    Sampling(max_tokens=9, seed=3, top_k=40, top_p=0.95),
    Sampling(max_tokens=9, seed=4, min_p=0.05, repetition_penalty=1.2),
    Sampling(max_tokens=9, seed=5, frequency_penalty=0.5, logit_bias={7: 3.0}, min_tokens=2),
    Sampling(max_tokens=9, seed=6, top_p=0.999, presence_penalty=1.0, logprobs=4),
    Sampling(max_tokens=9, seed=7, top_k=400, temperature=1.5),
]


@pytest.mark.parametrize("vocabulary", [300, 4096])
def test_company_and_place_change_nothing(vocabulary: int) -> None:
    sampler = Sampler(vocabulary, frozenset({2}))
    many = [MIXED[row % len(MIXED)] for row in range(32)]
    steps = [logits_of(32, vocabulary, seed, spread=1.0 + seed) for seed in range(4)]
    prompts = [[row, row + 1, 7] for row in range(32)]

    def run(rows: Sequence[int]) -> dict[int, list[SampledToken]]:
        states = [sampler.state(many[row], prompts[row]) for row in rows]
        made = [sampler.sample(logits[list(rows)], states) for logits in steps]
        return {row: [choices[place] for choices in made] for place, row in enumerate(rows)}

    together = run(range(32))
    seeded = [row for row in range(32) if many[row].greedy or many[row].seed is not None]
    permuted = np.random.default_rng(3).permutation(32).tolist()
    assert run(permuted) == together
    for row in seeded:
        assert run([row])[row] == together[row]


def test_sequences_that_join_and_leave_change_nothing() -> None:
    sampler = Sampler(200, frozenset({2}))
    logits = [logits_of(8, 200, seed) for seed in range(12)]
    alone: dict[int, list[int]] = {}
    for row, sampling in enumerate(MIXED):
        state = sampler.state(sampling, [row])
        alone[row] = [sampler.sample(step[row : row + 1].copy(), [state])[0].token_id for step in logits]
    states = [sampler.state(sampling, [row]) for row, sampling in enumerate(MIXED)]
    rng = np.random.default_rng(0)
    made: dict[int, list[int]] = {row: [] for row in range(8)}
    while any(len(tokens) < len(logits) for tokens in made.values()):
        present = [row for row in range(8) if len(made[row]) < len(logits) and rng.random() < 0.6]
        if present:
            step = np.stack([logits[len(made[row])][row] for row in present])
            for row, choice in zip(
                present, sampler.sample(step, [states[row] for row in present]), strict=True
            ):
                made[row].append(choice.token_id)
    assert made == alone


@pytest.mark.parametrize(
    ("sampling", "critical"),
    [
        # Critical values of chi-square at 0.999 for one degree of freedom less than the tokens kept.
        (Sampling(max_tokens=1), 31.26),
        (Sampling(max_tokens=1, temperature=0.6), 31.26),
        (Sampling(max_tokens=1, top_k=5), 18.47),
        (Sampling(max_tokens=1, top_p=0.7), 18.47),
        (Sampling(max_tokens=1, min_p=0.3), 20.52),
    ],
    ids=["plain", "cool", "top_k", "top_p", "min_p"],
)
def test_tokens_come_as_often_as_they_should(sampling: Sampling, critical: float) -> None:
    draws = 20_000
    logits = np.linspace(0.0, 2.2, 12, dtype=np.float32)
    kept = reference_kept(logits.tolist(), sampling, slack=0.0)
    sampler = Sampler(12, NO_ENDS)
    states: list[SamplerState] = []
    for seed in range(draws):
        state = sampler.state(sampling, ())
        state.seed = seed
        states.append(state)
    choices = sampler.sample(np.tile(logits, (draws, 1)), states)
    counts = np.bincount([choice.token_id for choice in choices], minlength=12)
    total = sum(kept.values())
    assert set(np.flatnonzero(counts).tolist()) == set(kept)
    distance = sum(
        (counts[token] - draws * w / total) ** 2 / (draws * w / total) for token, w in kept.items()
    )
    assert distance < critical


def test_uniforms_are_splitmix64_from_a_mixed_seed() -> None:
    mask = 2**64 - 1

    def mix(value: int) -> int:
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
        return value ^ (value >> 31)

    # The first outputs of SplitMix64 seeded with 1234567, from the algorithm's published test vector.
    assert mix(1234567 + 0x9E3779B97F4A7C15 & mask) == 6457827717110365317
    for seed in (0, 1, 42, mask):
        state = mix(seed + 0x9E3779B97F4A7C15 & mask)
        for index in range(5):
            state = state + 0x9E3779B97F4A7C15 & mask
            value = uniforms(np.array([seed], np.uint64), np.array([index], np.uint64))[0]
            assert value == (mix(state) >> 11) * 2.0**-53


def test_neighbouring_seeds_are_unrelated() -> None:
    seeds = np.arange(20_000, dtype=np.uint64)
    first = uniforms(seeds, np.zeros(20_000, np.uint64))
    second = uniforms(seeds, np.ones(20_000, np.uint64))
    limit = 4 / np.sqrt(20_000)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < limit
    assert abs(np.corrcoef(first, second)[0, 1]) < limit


def test_penalties_are_exact() -> None:
    settings_ = Sampling(max_tokens=1, repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.5)
    seen = SeenTokens(settings_, [1, 2, 2])
    for token in (2, 3, 3):
        seen.add(token)
    logits = np.array([[9, 9, 9, 9, 9], [8, 8, -8, 8, 8]], np.float32)
    Penalties([1], [seen]).apply(logits)
    assert logits.tolist() == [[9, 9, 9, 9, 9], [8, 4, -16 - 0.75, 4 - 1.25, 8]]


def test_presence_and_frequency_leave_the_prompt_alone() -> None:
    seen = SeenTokens(Sampling(max_tokens=1, presence_penalty=1.0), [1, 2])
    assert seen.ids.tolist() == []


def test_many_distinct_tokens_are_counted() -> None:
    seen = SeenTokens(Sampling(max_tokens=1, frequency_penalty=1.0), ())
    for token in [*range(500), *range(250)]:
        seen.add(token)
    assert dict(zip(seen.ids.tolist(), seen.counts.tolist(), strict=True)) == {
        token: 2.0 if token < 250 else 1.0 for token in range(500)
    }


def test_a_bias_bans_or_forces_a_token() -> None:
    logits = np.array([0, 5, 1, 1], np.float32)
    assert sample_one(logits, Sampling(max_tokens=1, temperature=0, logit_bias={1: -100.0})).token_id == 2
    assert sample_one(logits, Sampling(max_tokens=1, seed=1, logit_bias={3: 100.0})).token_id == 3


@pytest.mark.parametrize("token", [-1, 4])
def test_a_bias_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(ValueError, match=f"logit_bias .*{token}.* 3"):
        SamplerState(Sampling(max_tokens=1, logit_bias={token: 1.0}), (), 4, NO_ENDS)


def test_nothing_ends_a_text_before_its_least_length() -> None:
    sampler = Sampler(6, frozenset({2}))
    steps = np.array([0, 1, 9, 8, 2, 3], np.float32)

    def run(ignore_eos: bool = False) -> list[int]:
        sampling = Sampling(
            max_tokens=9, temperature=0, min_tokens=2, stop_token_ids=(3,), ignore_eos=ignore_eos
        )
        state = sampler.state(sampling, ())
        return [sampler.sample(steps[None].copy(), [state])[0].token_id for _ in range(3)]

    assert run() == [5, 5, 2]
    # An end token that ends nothing is a token like any other.
    assert run(ignore_eos=True) == [2, 2, 2]


def test_the_likeliest_of_equals_is_the_lowest() -> None:
    assert sample_one(np.array([1, 3, 3, 3], np.float32), Sampling(max_tokens=1, temperature=0)).token_id == 1


def test_almost_no_temperature_is_greedy_and_overflows_nothing() -> None:
    logits = np.array([-3e38, 3e38, 2.9e38, 0], np.float32)
    assert sample_one(logits, Sampling(max_tokens=1, temperature=1e-30, seed=5)).token_id == 1


def test_without_a_seed_every_sequence_has_its_own() -> None:
    sampler = Sampler(4, NO_ENDS)
    assert len({sampler.state(Sampling(max_tokens=1), ()).seed for _ in range(20)}) == 20


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [[NAN, 0, 0, 0], [0, 1, INF, 0], [-INF] * 4, [-INF, -INF, 3, -INF]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bad_logits_fail_their_own_row_alone(bad: list[float], temperature: float) -> None:
    sampler = Sampler(4, frozenset({2}))
    plain = Sampling(max_tokens=9, temperature=temperature, seed=3, min_tokens=1, frequency_penalty=0.5)
    logits = np.array([[0, 1, 2, 3], bad, [3, 2, 1, 0]], np.float32)
    before = logits.copy()
    states = [sampler.state(plain, ()) for _ in range(3)]
    with pytest.raises(BadLogitsError, match="sequences 1") as caught:
        sampler.sample(logits, states)
    assert caught.value.rows == (1,)
    assert np.array_equal(logits, before, equal_nan=True)
    assert [state.step for state in states] == [0, 0, 0]
    others = sampler.sample(logits[[0, 2]], [states[0], states[2]])
    fresh = [sampler.state(plain, ()) for _ in range(2)]
    assert others == sampler.sample(before[[0, 2]], fresh)


@pytest.mark.parametrize("faulty", [{"top_k": 1 << 70}, {"logprobs": "many"}])
def test_a_row_that_cannot_be_sampled_fails_alone(faulty: dict[str, Any]) -> None:
    sampler = Sampler(4, NO_ENDS)
    plain: dict[str, Any] = {"max_tokens": 9, "seed": 3, "frequency_penalty": 0.5}
    logits = np.array([[0, 1, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0]], np.float32)
    before = logits.copy()
    states = [sampler.state(Sampling(**plain | more), ()) for more in ({}, faulty, {})]
    with pytest.raises(BadRowsError) as caught:
        sampler.sample(logits, states)
    assert set(caught.value.faults) == {1}
    assert np.array_equal(logits, before)
    assert [state.step for state in states] == [0, 0, 0]
    fresh = [sampler.state(Sampling(**plain), ()) for _ in range(2)]
    assert sampler.sample(logits[[0, 2]], [states[0], states[2]]) == sampler.sample(before[[0, 2]], fresh)


def test_a_token_of_no_probability_is_never_chosen() -> None:
    sampler = Sampler(300, NO_ENDS)
    logits = logits_of(64, 300)
    logits[:, 1::2] = -np.inf
    states = [sampler.state(Sampling(max_tokens=1, seed=seed), ()) for seed in range(64)]
    assert {choice.token_id % 2 for choice in sampler.sample(logits, states)} == {0}


@pytest.mark.parametrize("shape", [(2, 4), (1, 5)])
def test_logits_of_another_shape_are_refused(shape: tuple[int, int]) -> None:
    sampler = Sampler(4, NO_ENDS)
    with pytest.raises(ValueError, match=r"float32 .*\(1, 4\)"):
        sampler.sample(np.zeros(shape, np.float32), [sampler.state(Sampling(max_tokens=1), ())])


def test_an_empty_batch_chooses_nothing() -> None:
    assert Sampler(4, NO_ENDS).sample(np.zeros((0, 4), np.float32), []) == []


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_truncation_keeps_exactly_the_tokens_of_the_rules(spread: float) -> None:
    # Wide enough that the heaviest few hundred settle some rows and not others.
    many = [
        Sampling(max_tokens=1, top_p=0.5),
        Sampling(max_tokens=1, top_p=0.97),
        Sampling(max_tokens=1, top_k=300, top_p=0.97),
        Sampling(max_tokens=1, top_k=20),
        Sampling(max_tokens=1, min_p=0.01, top_k=300, top_p=0.9),
        Sampling(max_tokens=1, min_p=1.0),
    ]
    logits = logits_of(len(many), 4096, seed=8, spread=spread)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    rules = Truncation(
        min_p=np.array([sampling.min_p for sampling in many], np.float32),
        top_k=np.array([sampling.top_k for sampling in many]),
        top_p=np.array([sampling.top_p for sampling in many]),
    )
    truncate(weights, rules)
    for row, sampling in enumerate(many):
        assert set(np.flatnonzero(weights[row])) == set(reference_kept(logits[row].tolist(), sampling, 0.0))


def test_penalties_do_not_overflow() -> None:
    logits = np.array([3e38, -3e38, 0], np.float32)
    sampling = Sampling(max_tokens=1, repetition_penalty=0.01, temperature=1.0, seed=1)
    assert sample_one(logits, sampling, [0, 1]).token_id == 0
