"""Log probabilities: those of the model itself, as torch has them, with the alternatives asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from server.engines.embedded.sampling.sampler import (
    BadLogitsError,
    Sampler,
)
from server.request import Sampling
from tests.server.engines.embedded.sampling.sampled import NO_ENDS, logits_of, sample_one


@pytest.mark.parametrize("top", [0, 1, 5, 40])
def test_logprobs_equal_torch(top: int) -> None:
    # A coarse grid, so that alternatives tie; more rows than are worked on at once.
    logits = (np.random.default_rng(0).integers(-20, 20, (150, 40)) / 4).astype(np.float32)
    tokens = np.random.default_rng(1).integers(0, 40, 150).tolist()
    before = logits.copy()
    scored = Sampler(40, NO_ENDS).score(logits, tokens, top)
    wanted = torch.log_softmax(torch.from_numpy(logits.astype(np.float64)), dim=1)
    order = torch.argsort(torch.from_numpy(logits), dim=1, descending=True, stable=True)
    assert np.array_equal(logits, before)
    for row, score in enumerate(scored):
        assert score.token_id == tokens[row]
        assert score.logprob == pytest.approx(float(wanted[row, tokens[row]]), abs=1e-5)
        assert [token for token, _ in score.top] == order[row, :top].tolist()
        assert [value for _, value in score.top] == pytest.approx(
            wanted[row, order[row, :top]].tolist(), abs=1e-5
        )


def test_logprobs_are_of_the_models_own_logits() -> None:
    logits = logits_of(1, 50)[0]
    odd = Sampling(
        max_tokens=1,
        seed=3,
        temperature=0.5,
        top_k=3,
        logit_bias={1: 50.0},
        repetition_penalty=1.5,
        logprobs=2,
    )
    choice = sample_one(logits, odd, [1, 2])
    assert choice.logprob is not None
    wanted = torch.log_softmax(torch.from_numpy(logits), dim=0)
    assert choice.token_id == 1
    assert choice.logprob.logprob == pytest.approx(float(wanted[1]), abs=1e-5)
    assert [token for token, _ in choice.logprob.top] == torch.argsort(wanted, descending=True)[:2].tolist()


def test_scoring_names_the_rows_it_cannot_score() -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[2, 1] = np.nan
    with pytest.raises(BadLogitsError) as caught:
        Sampler(4, NO_ENDS).score(logits, [0, 1, 2], 1)
    assert caught.value.rows == (2,)


def test_every_row_has_as_many_alternatives_as_it_asked_for() -> None:
    sampler = Sampler(9, NO_ENDS)
    wanted = [2, None, 0, 5]
    states = [sampler.state(Sampling(max_tokens=1, logprobs=count), ()) for count in wanted]
    choices = sampler.sample(logits_of(4, 9), states)
    assert [None if c.logprob is None else len(c.logprob.top) for c in choices] == wanted
