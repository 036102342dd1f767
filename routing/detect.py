"""Which language a conversation is in: a posterior over the candidates and "something else".

One turn is scored by `routing.evidence`; turns are joined by a forward filter (a hidden Markov model whose
hidden state is the user's language). Nothing here knows of adapters beyond the prior that they give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from routing.accept import preferred_languages
from routing.clean import LIMIT, CleanText, clean
from routing.evidence import Evidence, Scorer, Scores
from routing.profiles import ProfileError, profiled_languages
from routing.scripts import LANGUAGES, LATIN, main_script, script_of
from routing.settings import OTHER, RoutingSettings, detection_code

NEIGHBOURS = ("en", "sv", "da", "no", "de", "fi", "nl")
"""Candidates besides the configured languages: told apart by name, whether they have an adapter or not."""
BACKGROUND = (
    *("af", "ca", "cs", "cy", "es", "et", "fr", "hr", "hu", "id", "it", "lt"),
    *("lv", "pl", "pt", "ro", "sk", "sl", "so", "sq", "sw", "tl", "tr", "vi"),
)
"""Their best stands for `xx`."""
_EARLIER_LIMIT = 300
"""Characters of an earlier turn that are scored."""
_PAYLOAD = 1.5
"""Most, in nats, that the text which an instruction is about may tell of the language to answer in."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A posterior over the candidate languages and `xx`, something else."""

    language: str | None
    """The decided language, `xx` included; None is undecided."""
    confidence: float
    """Posterior probability of the likeliest language, decided or not."""
    scores: Mapping[str, float]
    """Language → posterior probability, likeliest first; they add up to 1."""
    evidence: str
    """Why, for people: what was read and what it told."""
    from_history: bool = False
    """Whether the question alone was undecided and the earlier turns settled it."""
    told: bool = True
    """Whether any turn told anything; if not, the scores are no more than the prior."""

    @property
    def likeliest(self) -> str:
        """The language of `confidence`."""
        return next(iter(self.scores))


class Detector(Protocol):
    """Anything that tells languages."""

    def detect(self, turns: Sequence[str], accept_language: str | None = None) -> Detection:
        """Judge the user's turns, oldest first; the last is the question. Never raises."""
        ...


class ProfileDetector:
    """The default: langdetect's profiles scored exactly, with words, a prior and the conversation.

    Loads its tables once; holds no state after that, so that any number of threads may share it and the
    same turns always give the same answer.
    """

    def __init__(self, settings: RoutingSettings | None = None) -> None:
        """Raises `ProfileError` for a configured language that has no profile and no script of its own."""
        self._settings = settings or RoutingSettings()
        configured = tuple(detection_code(row.code) for row in self._settings.languages)
        for code in configured:
            if code not in profiled_languages() and script_of(code) == LATIN:
                raise ProfileError(
                    f"languages names {code!r}, which detection has no profile of; "
                    f"there are: {', '.join(sorted(profiled_languages()))}"
                )
        latin = tuple(
            dict.fromkeys((*NEIGHBOURS, *(code for code in configured if script_of(code) == LATIN)))
        )
        self._scorers = {LATIN: Scorer(latin, tuple(code for code in BACKGROUND if code not in latin))}
        for script, languages in LANGUAGES.items():
            ours = tuple(code for code in languages if code in configured)
            if ours and len(languages) > 1:
                self._scorers[script] = Scorer(ours, tuple(code for code in languages if code not in ours))
        self._labels = (*dict.fromkeys((*latin, *configured)), OTHER)
        self._column = {label: column for column, label in enumerate(self._labels)}
        self._prior = self._make_prior()

    @property
    def languages(self) -> tuple[str, ...]:
        """The candidates, without `xx`."""
        return self._labels[:-1]

    def detect(self, turns: Sequence[str], accept_language: str | None = None) -> Detection:
        """Judge the user's turns, oldest first; the last is the question. Never raises."""
        prior = self._hinted(accept_language)
        question, evidence = self._read(turns[-1] if turns else "", LIMIT)
        told = bool(question.any())
        alone = _normalised(np.log(prior) + question)
        if alone.max() >= self._settings.sure or len(turns) < 2:
            return self._detection(alone, evidence, from_history=False, told=told)
        belief = prior
        for turn in turns[-self._settings.history : -1]:
            read = self._read(turn, _EARLIER_LIMIT)[0]
            told = told or bool(read.any())
            belief = _normalised(np.log(self._step(belief, prior)) + read)
        joint = _normalised(np.log(self._step(belief, prior)) + question)
        settled = bool(joint.max() >= self._settings.sure)
        evidence += f"; earlier turns heard: {len(turns[-self._settings.history : -1])}"
        return self._detection(joint, evidence, from_history=settled, told=told)

    def _step(self, belief: Scores, prior: Scores) -> Scores:
        return self._settings.stay * belief + (1 - self._settings.stay) * prior

    def _detection(self, posterior: Scores, evidence: str, *, from_history: bool, told: bool) -> Detection:
        order = np.argsort(-posterior, kind="stable")
        scores = {self._labels[column]: float(posterior[column]) for column in order}
        likeliest, confidence = next(iter(scores.items()))
        language = likeliest if told and confidence >= self._settings.sure else None
        return Detection(language, confidence, MappingProxyType(scores), evidence, from_history, told)

    def _read(self, turn: str, limit: int) -> tuple[Scores, str]:
        """Log-likelihood of one turn for each label, and what was read."""
        cleaned = clean(turn, limit)
        script = main_script("".join(cleaned.words))
        if script != LATIN and script not in self._scorers:
            return self._by_script(script), _explain(cleaned, f"written in {script} letters")
        scorer = self._scorers[script]
        whole = scorer.score(cleaned.words)
        if cleaned.instruction is None:
            return self._placed(scorer, whole), _explain(cleaned, _why(scorer, whole))
        found = scorer.score(cleaned.instruction)
        scores = self._placed(scorer, found) + np.maximum(self._placed(scorer, whole), -_PAYLOAD)
        return scores - scores.max(), _explain(cleaned, _why(scorer, found), instruction=True)

    def _placed(self, scorer: Scorer, found: Evidence) -> Scores:
        """Scores of one script's labels among all labels; the others are out of the question."""
        if not found.grams and not found.scores.any():
            return np.zeros(len(self._labels))
        placed = np.full(len(self._labels), found.scores.max() - 50.0)
        placed[[self._column[label] for label in scorer.labels]] = found.scores
        return placed - placed.max()

    def _by_script(self, script: str) -> Scores:
        scores = np.full(len(self._labels), -50.0)
        ours = [self._column[code] for code in LANGUAGES.get(script, ()) if code in self._column]
        scores[ours or [-1]] = 0.0
        return scores

    def _make_prior(self) -> Scores:
        settings = self._settings
        prior = np.zeros(len(self._labels))
        total = sum(row.weight for row in settings.languages)
        for row in settings.languages:
            prior[self._column[detection_code(row.code)]] = (1 - settings.other_prior) * row.weight / total
        without = prior == 0
        prior[without] = (settings.other_prior if settings.languages else 1.0) / without.sum()
        prior.setflags(write=False)
        return prior

    def _hinted(self, accept_language: str | None) -> Scores:
        hint = next((code for code in preferred_languages(accept_language) if code in self.languages), None)
        if hint is None:
            return self._prior
        prior = self._prior.copy()
        prior[self._column[hint]] *= self._settings.hint
        return prior / prior.sum()


def _normalised(scores: Scores) -> Scores:
    weights = np.exp(scores - scores.max())
    # No probability is ever 0, so that its logarithm stays finite in the next step of the filter.
    weights = np.maximum(weights, 1e-12)
    return weights / weights.sum()


def _why(scorer: Scorer, found: Evidence) -> str:
    if not found.grams and not found.known:
        return "nothing that tells a language"
    words = ", ".join(f"{word} ({'/'.join(scorer.languages_of(word))})" for word in found.known[:8])
    return f"{found.grams} letter groups; known words: {words or 'none'}"


def _explain(cleaned: CleanText, why: str, *, instruction: bool = False) -> str:
    parts = [f"read the instruction, hardly the text that it is about: {why}" if instruction else why]
    if cleaned.stripped:
        parts.append(f"left out: {', '.join(cleaned.stripped)}")
    return "; ".join(parts)
