"""Samples the next token of every sequence in a batch from the logits of one engine step.

The order of operations is vLLM's: logit bias, minimum length, penalties, temperature, min_p, top_k, top_p. A
grammar is applied before them: a token that it forbids is never chosen. If the grammar allows only an end
token, the text ends, whatever `min_tokens` and `ignore_eos` say. A sequence's token depends on its own
logits, parameters, seed and history, never on the other sequences in the batch.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.sampling.logprobs import score_tokens
from server.engines.embedded.sampling.penalties import Penalties, SeenTokens, wants_penalties
from server.engines.embedded.sampling.truncation import Truncation, draw, truncate
from server.engines.embedded.sampling.uniform import uniforms
from server.errors import EngineError, UnsupportedRequestError
from server.request import Sampling, TokenLogprob

if TYPE_CHECKING:  # imports llguidance, which most servers never need
    from server.engines.embedded.sampling.guided import Guide

_COLDEST = 1e-5
_NO_NUMBERS = "the model computed NaN or infinite logits for this request; the server's log has the details"
_UNSAMPLED = "sampling failed for this request; the server's log has the reason"


class BadRowsError(EngineError):
    """Some sequences of the batch cannot be sampled.

    Nothing has been changed, so the caller can sample the other sequences without them.
    """

    def __init__(self, message: str, faults: Mapping[int, EngineError]) -> None:
        super().__init__(message)
        self.faults = faults
        """Maps the index of each failed sequence in the batch to its error."""


class BadLogitsError(BadRowsError):
    """The logits of the batch's sequences in `rows` contain NaN or +inf, or allow no token."""

    def __init__(self, rows: Sequence[int]) -> None:
        listed = ", ".join(map(str, rows))
        message = (
            f"the model's logits contain NaN or +inf, or allow no token, for the sequences {listed} of the "
            "batch"
        )
        super().__init__(message, {row: EngineError(_NO_NUMBERS) for row in rows})
        self.rows = tuple(rows)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The token that was sampled for one sequence, with its log probability if the request wants log
    probabilities.
    """

    token_id: int
    logprob: TokenLogprob | None


class SamplerState:
    """The sampling state of one sequence, kept from its first token to its last.

    Raises `ValueError` if `logit_bias` has a token id outside the vocabulary.
    """

    __slots__ = (
        "bias_ids",
        "bias_values",
        "ends",
        "eos",
        "guide",
        "lost",
        "sampling",
        "seed",
        "seen",
        "step",
    )

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        vocabulary: int,
        eos_ids: frozenset[int],
        guide: Guide | None = None,
    ) -> None:
        for token in sampling.logit_bias:
            if not 0 <= token < vocabulary:
                raise ValueError(
                    f"logit_bias has the token {token}, but token ids go from 0 to {vocabulary - 1}; remove "
                    "it"
                )
        self.sampling = sampling
        self.step = 0
        """Number of tokens chosen so far."""
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self.seed = seed & 0xFFFF_FFFF_FFFF_FFFF
        self.seen = SeenTokens(sampling, prompt) if wants_penalties(sampling) else None
        self.bias_ids = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self.bias_values = np.fromiter(sampling.logit_bias.values(), np.float32)
        ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else eos_ids)
        self.ends = np.array(sorted(token for token in ends if 0 <= token < vocabulary), np.int64)
        self.eos = np.array(sorted(token for token in eos_ids if token < vocabulary), np.int64)
        self.guide = guide
        self.lost: Exception | None = None
        """Error of the grammar at the last token, if any. Raised when the next token is chosen."""

    @property
    def too_short(self) -> bool:
        """True while the text has fewer than `min_tokens` tokens, so that it must not end yet."""
        return self.step < self.sampling.min_tokens

    def add(self, token: int) -> None:
        """Record the token that was just sampled, for penalties and the grammar."""
        self.step += 1
        if self.seen is not None:
            self.seen.add(token)
        if self.guide is not None:
            try:
                self.guide.add(token)
            except Exception as error:
                self.lost = error

    def mask_forbidden(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a copy of `logits` [vocabulary] in which every token that the grammar forbids is -inf.

        End tokens are forbidden too if `min_tokens` or `ignore_eos` says so, unless no other token is left.
        Raises `UnsupportedRequestError` if no token is allowed at all.
        """
        assert self.guide is not None
        if self.lost is not None:
            raise UnsupportedRequestError(
                "the answer cannot go on as the request's grammar demands; simplify the grammar",
                "response_format",
            ) from self.lost
        kept = np.where(self.guide.allowed_tokens(), logits, -np.inf)
        held = [*((self.ends,) if self.too_short else ()), *((self.eos,) if self.sampling.ignore_eos else ())]
        if held:
            going = kept.copy()
            going[np.concatenate(held)] = -np.inf
            if np.isfinite(going.max()):
                return going
        if not np.isfinite(kept.max()):
            raise UnsupportedRequestError(
                "the request's grammar allows none of the model's tokens next; simplify the grammar",
                "response_format",
            )
        return kept


class Sampler:
    """Samples tokens for batches of sequences. Not thread-safe: it caches the last batch's parameters."""

    def __init__(self, vocabulary: int, eos_ids: frozenset[int]) -> None:
        self._vocabulary = vocabulary
        self._eos_ids = eos_ids
        self._batch = _Batch([])

    def state(self, sampling: Sampling, prompt: Sequence[int], guide: Guide | None = None) -> SamplerState:
        """Create the sampling state of a new sequence."""
        return SamplerState(sampling, prompt, self._vocabulary, self._eos_ids, guide)

    def sample(self, logits: NDArray[np.float32], states: Sequence[SamplerState]) -> list[SampledToken]:
        """Sample a token for each row of `logits` [n, vocabulary], float32, one row per sequence. `logits`
        may be overwritten.

        Raises `BadRowsError` if some sequences cannot be sampled; states and logits are unchanged then. After
        any other error, each sequence is sampled alone, and `BadRowsError` is raised for those that fail.
        """
        if logits.shape != (len(states), self._vocabulary) or logits.dtype != np.float32:
            raise ValueError(
                f"the logits to sample from are {logits.dtype} of shape {logits.shape}, "
                f"but must be float32 of shape {(len(states), self._vocabulary)}"
            )
        if not states:
            return []
        kept = logits
        try:
            batch = self._batch
            if batch.states != list(states):
                batch = self._batch = _Batch(states)
            if batch.edits and len(states) > 1:
                kept = logits.copy()
            tokens, scores = batch.choose(logits)
        except BadRowsError:
            raise
        except Exception as error:
            logits[...] = kept
            raise _blame(logits, states) from error
        for state, token in zip(states, tokens, strict=True):
            state.add(token)
        return [SampledToken(token, score) for token, score in zip(tokens, scores, strict=True)]

    def score(self, logits: NDArray[np.float32], tokens: Sequence[int], top: int) -> tuple[TokenLogprob, ...]:
        """Return the log probability of each `tokens[i]` in row i of `logits` [m, vocabulary], with its `top`
        most likely alternatives.

        `logits` is not changed. Raises `BadLogitsError` if a row contains NaN or +inf.
        """
        if len(tokens) == 0:
            return ()
        _check(logits.max(axis=1))
        return tuple(score_tokens(logits, tokens, [top] * len(tokens)))


def _blame(logits: NDArray[np.float32], states: Sequence[SamplerState]) -> BadRowsError:
    """Sample each sequence alone, and return an error that names those that fail.

    If none fails alone, the error names all of them.
    """
    faults: dict[int, EngineError] = {}
    for row, state in enumerate(states):
        try:
            _Batch([state]).choose(logits[row : row + 1].copy())
        except BadRowsError as error:
            faults[row] = error.faults[0]
        except Exception:
            faults[row] = EngineError(_UNSAMPLED)
    faults = faults or dict.fromkeys(range(len(states)), EngineError(_UNSAMPLED))
    return BadRowsError(f"sampling failed for the sequences {sorted(faults)} of the batch", faults)


class _Batch:
    """The sampling parameters of a batch as arrays.

    They are created once and reused until the batch changes.
    """

    def __init__(self, states: Sequence[SamplerState]) -> None:
        self.states = list(states)
        settings = [state.sampling for state in states]
        self._guided = [row for row, state in enumerate(states) if state.guide is not None]
        self._minimum = [
            row for row, setting in enumerate(settings) if setting.min_tokens and states[row].guide is None
        ]
        self._scored = [row for row, setting in enumerate(settings) if setting.logprobs is not None]
        self._tops = [settings[row].logprobs or 0 for row in self._scored]
        penalised = [(row, state.seen) for row, state in enumerate(states) if state.seen is not None]
        self._penalties = Penalties([row for row, _ in penalised], [seen for _, seen in penalised])
        self._bias_rows = np.repeat(np.arange(len(states)), [len(state.bias_ids) for state in states])
        self._bias_ids = np.concatenate([np.zeros(0, np.int64), *(state.bias_ids for state in states)])
        self._bias_values = np.concatenate(
            [np.zeros(0, np.float32), *(state.bias_values for state in states)]
        )
        self._edited = bool(penalised) or len(self._bias_ids) > 0
        drawn = [row for row, setting in enumerate(settings) if not setting.greedy]
        self._drawn = np.array(drawn, np.int64)
        self._seeds = np.array([states[row].seed for row in drawn], np.uint64)
        self._temperatures = np.array(
            [[max(settings[row].temperature, _COLDEST)] for row in drawn], np.float32
        ).reshape(-1, 1)
        self._rules = Truncation(
            min_p=np.array([settings[row].min_p for row in drawn], np.float32),
            top_k=np.array([settings[row].top_k for row in drawn], np.int64),
            top_p=np.array([settings[row].top_p for row in drawn], np.float64),
        )

    @property
    def edits(self) -> bool:
        """True if `choose` overwrites the logits that it is given."""
        return bool(self._edited or self._drawn.size or self._guided or self._minimum)

    def choose(self, logits: NDArray[np.float32]) -> tuple[list[int], list[TokenLogprob | None]]:
        """Sample a token for each row of `logits`.

        Return the tokens, and their log probabilities (None if not wanted).
        """
        raw = logits[self._scored] if self._scored else None
        tokens = self._pick(logits)
        scores: list[TokenLogprob | None] = [None] * len(tokens)
        if raw is not None:
            wanted = [tokens[row] for row in self._scored]
            for row, score in zip(self._scored, score_tokens(raw, wanted, self._tops), strict=True):
                scores[row] = score
        return tokens, scores

    def _pick(self, logits: NDArray[np.float32]) -> list[int]:
        best = logits.argmax(axis=1)
        _check(logits[np.arange(len(logits)), best])
        kept = self._keep_to_grammars(logits) if self._guided else None
        short = [row for row in self._minimum if self.states[row].too_short]
        if short:
            best = self._forbid_ends(logits, short)
        if kept is not None:
            logits[self._guided] = kept
            best[self._guided] = kept.argmax(axis=1)
        if self._edited:
            logits[self._bias_rows, self._bias_ids] += self._bias_values
            self._penalties.apply(logits)
            best = logits.argmax(axis=1)
        if self._drawn.size:
            best[self._drawn] = self._draw(logits, best)
        return best.tolist()

    def _keep_to_grammars(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of the sequences with a grammar, with forbidden tokens set to -inf;
        [len(self._guided), vocabulary].
        """
        kept: list[NDArray[np.float32]] = []
        faults: dict[int, EngineError] = {}
        for row in self._guided:
            try:
                kept.append(self.states[row].mask_forbidden(logits[row]))
            except UnsupportedRequestError as error:
                faults[row] = error
        if faults:
            raise BadRowsError(
                f"the grammars of the sequences {sorted(faults)} of the batch cannot be followed", faults
            )
        return np.stack(kept)

    def _forbid_ends(self, logits: NDArray[np.float32], short: list[int]) -> NDArray[np.intp]:
        """Set the end tokens of the rows in `short`, whose texts must not end yet, to -inf. Return the most
        likely token of every row.

        This is done before the logit bias is added, with the same result as after it. So rows without any
        possible token are found while the logits can still be restored.
        """
        ends = [self.states[row].ends for row in short]
        rows = np.repeat(np.array(short, np.int64), [len(ids) for ids in ends])
        ids = np.concatenate(ends)
        saved = logits[rows, ids]
        logits[rows, ids] = -np.inf
        best = logits.argmax(axis=1)
        try:
            _check(logits[np.arange(len(logits)), best])
        except BadLogitsError:
            logits[rows, ids] = saved
            raise
        return best

    def _draw(self, logits: NDArray[np.float32], best: NDArray[np.intp]) -> NDArray[np.intp]:
        """Draw a random token for each sequence that is not sampled greedily; shape [len(self._drawn)]."""
        peaks = logits[self._drawn, best[self._drawn]]
        weights = logits if len(self._drawn) == len(logits) else logits[self._drawn]
        with np.errstate(over="ignore", under="ignore"):
            weights -= peaks[:, None]
            weights /= self._temperatures
            np.exp(weights, out=weights)
        truncate(weights, self._rules)
        steps = np.array([self.states[row].step for row in self._drawn.tolist()], np.uint64)
        return draw(weights, uniforms(self._seeds, steps))


def _check(peaks: NDArray[np.float32]) -> None:
    """Raise `BadLogitsError` if the largest logit of a sequence is NaN or infinite.

    `peaks` [n] holds the largest logit of each.
    """
    finite = np.isfinite(peaks)
    if not finite.all():
        raise BadLogitsError(np.flatnonzero(~finite).tolist())
