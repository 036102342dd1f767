"""Detect the language of a conversation: a posterior over the candidate languages and "something else".

`routing.evidence` scores each of the user's messages. A forward filter combines the messages (a hidden Markov
model whose hidden state is the user's language). The adapters of a server only affect the prior probabilities
of their languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from routing.accept import language_qualities
from routing.evidence.profiles import ProfileError, profiled_languages
from routing.evidence.scorer import Evidence, Scorer, Scores
from routing.evidence.weights import OTHER_SCRIPTS
from routing.reading.clean import LIMIT, CleanText, clean
from routing.reading.scripts import LANGUAGES, LATIN, main_script, script_of
from routing.settings import OTHER, RoutingSettings, detection_code

NEIGHBOURS = ("en", "sv", "da", "no", "de", "fi", "nl")
"""Candidate languages in addition to the configured ones, whether they have an adapter or not."""
BACKGROUND = (
    *("af", "ca", "cs", "cy", "es", "et", "fr", "hr", "hu", "id", "is", "it", "lt"),
    *("lv", "pl", "pt", "ro", "sk", "sl", "so", "sq", "sw", "tl", "tr", "vi"),
)
"""Languages that count as `xx` (something else). The highest score among them is the score of `xx`."""
_EARLIER_LIMIT = 300
"""Maximum number of characters that are scored of each user message before the latest."""
_PAYLOAD, _PAYLOAD_OF_SURE = 1.5, 0.5
"""A text that an instruction is about ("Translate this: …") may count against a language by at most this many
nats. The first limit applies if the instruction is recognised by its length only, the second if by its words.
"""
_SURE_ALONE = 0.97
"""If the latest message alone gives one language at least this probability, earlier messages are ignored."""
_NAME = 0.1
"""Factor on the evidence of a message that consists of a name only, such as "Stockholm"."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The result of detection: the posterior probability of each candidate language and of `xx` (something
    else).
    """

    language: str | None
    """The decided language, which may be `xx`; None if undecided."""
    confidence: float
    """Posterior probability of the likeliest language, even if the language is undecided."""
    scores: Mapping[str, float]
    """Maps each language to its posterior probability, likeliest first. The probabilities add up to 1."""
    evidence: str
    """Explanation for people: which part of the message was read, and what evidence it gave."""
    from_history: bool = False
    """True if the earlier messages decided the language: the latest message alone was undecided, or suggested
    another language.
    """
    told: bool = True
    """True if any message gave evidence of a language. If not, `scores` are the prior probabilities."""

    @property
    def likeliest(self) -> str:
        """The most likely language. `confidence` is its probability."""
        return next(iter(self.scores))


class Detector(Protocol):
    """Detects the language of a conversation."""

    def detect(self, turns: Sequence[str], accept_language: str | None = None) -> Detection:
        """Detect the language of `turns`, the user's messages, oldest first; the last is the question. Never
        raises.
        """
        ...


class ProfileDetector:
    """The default detector. Combines langdetect's letter statistics, word lists, prior probabilities and
    earlier messages.

    It loads its tables once and has no other state. So threads can share it, and the same messages always
    give the same result.
    """

    def __init__(self, settings: RoutingSettings | None = None) -> None:
        """Create the detector. Raises `ProfileError` for a configured language that has neither a letter
        profile nor a script of its own.
        """
        self._settings = settings or RoutingSettings()
        configured = tuple(detection_code(row.code) for row in self._settings.languages)
        for code in configured:
            if code not in profiled_languages() and script_of(code) == LATIN:
                raise ProfileError(
                    f"the routing languages include {code!r}, which the language detector does not know; "
                    f"use one of: {', '.join(sorted(profiled_languages()))}"
                )
        latin = tuple(
            dict.fromkeys((*NEIGHBOURS, *(code for code in configured if script_of(code) == LATIN)))
        )
        self._scorers = {LATIN: Scorer(latin, tuple(code for code in BACKGROUND if code not in latin))}
        for script, languages in LANGUAGES.items():
            ours = tuple(code for code in languages if code in configured)
            if ours and len(languages) > 1:
                others = tuple(code for code in languages if code not in ours)
                self._scorers[script] = Scorer(ours, others, OTHER_SCRIPTS)
        self._labels = (*dict.fromkeys((*latin, *configured)), OTHER)
        self._column = {label: column for column, label in enumerate(self._labels)}
        self._prior = self._make_prior()

    @property
    def languages(self) -> tuple[str, ...]:
        """The candidate languages, without `xx` (something else)."""
        return self._labels[:-1]

    def detect(self, turns: Sequence[str], accept_language: str | None = None) -> Detection:
        """Detect the language of `turns`, the user's messages, oldest first; the last is the question. Never
        raises.
        """
        prior = self._hinted(accept_language)
        question, evidence, named = self._read(turns[-1] if turns else "", LIMIT)
        told = bool(question.any())
        alone = _normalised(np.log(prior) + question)
        if len(turns) < 2 or (alone.max() >= max(self._settings.sure, _SURE_ALONE) and not named):
            return self._detection(alone, evidence, from_history=False, told=told)
        if named:
            question = question * _NAME
        belief = prior
        for turn in turns[-self._settings.history : -1]:
            read, _, named = self._read(turn, _EARLIER_LIMIT)
            told = told or bool(read.any())
            belief = _normalised(np.log(self._step(belief, prior)) + (read * _NAME if named else read))
        joint = _normalised(np.log(self._step(belief, prior)) + question)
        settled = bool(joint.max() >= self._settings.sure > alone.max()) or bool(
            joint.max() >= self._settings.sure and joint.argmax() != alone.argmax()
        )
        evidence += f"; earlier messages read: {len(turns[-self._settings.history : -1])}"
        return self._detection(joint, evidence, from_history=settled, told=told)

    def _step(self, belief: Scores, prior: Scores) -> Scores:
        return self._settings.stay * belief + (1 - self._settings.stay) * prior

    def _detection(self, posterior: Scores, evidence: str, *, from_history: bool, told: bool) -> Detection:
        order = np.argsort(-posterior, kind="stable")
        scores = {self._labels[column]: float(posterior[column]) for column in order}
        likeliest, confidence = next(iter(scores.items()))
        language = likeliest if told and confidence >= self._settings.sure else None
        return Detection(language, confidence, MappingProxyType(scores), evidence, from_history, told)

    def _read(self, turn: str, limit: int) -> tuple[Scores, str, bool]:
        """Return the log-likelihood of the message `turn` for each candidate language and for `xx` (something
        else), an explanation, and True if the message is only a name or may be a command.
        """
        cleaned = clean(turn, limit)
        script = main_script("".join(cleaned.words.all))
        if script != LATIN and script not in self._scorers:
            return self._by_script(script), _explain(cleaned, f"written in {script} letters"), False
        scorer = self._scorers[script]
        whole = scorer.score(cleaned.words)
        named = cleaned.command or (cleaned.name and not whole.known)
        if cleaned.instruction is None:
            return self._placed(scorer, whole), _explain(cleaned, _why(scorer, whole)), named
        found = scorer.score(cleaned.instruction.words)
        most = _PAYLOAD_OF_SURE if cleaned.instruction.sure else _PAYLOAD
        scores = self._placed(scorer, found) + np.maximum(self._placed(scorer, whole), -most)
        return scores - scores.max(), _explain(cleaned, _why(scorer, found), instruction=True), False

    def _placed(self, scorer: Scorer, found: Evidence) -> Scores:
        """Expand the scores that `scorer` gave to the languages of one script to all candidate languages.
        Languages of other scripts get a very low score.
        """
        if not found.grams and not found.scores.any():
            return np.zeros(len(self._labels))
        if scorer.labels == self._labels:
            return found.scores - found.scores.max()
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
        qualities = language_qualities(accept_language)
        hint = next((code for code in qualities if code in self.languages), None)
        if hint is None:
            return self._prior
        prior = self._prior.copy()
        prior[self._column[hint]] *= 1 + (self._settings.hint - 1) * qualities[hint]
        return prior / prior.sum()


def _normalised(scores: Scores) -> Scores:
    weights = np.exp(scores - scores.max())
    # No probability is ever 0, so that its logarithm stays finite in the next step of the filter.
    weights = np.maximum(weights, 1e-12)
    return weights / weights.sum()


def _why(scorer: Scorer, found: Evidence) -> str:
    if not found.grams and not found.known:
        return "nothing in the text shows a language"
    words = ", ".join(f"{word} ({'/'.join(scorer.languages_of(word))})" for word in found.known[:8])
    return f"{found.grams} letter groups; known words: {words or 'none'}"


def _explain(cleaned: CleanText, why: str, *, instruction: bool = False) -> str:
    parts = [f"the instruction counts more than the text that it is about: {why}" if instruction else why]
    if cleaned.stripped:
        parts.append(f"left out: {', '.join(cleaned.stripped)}")
    return "; ".join(parts)
