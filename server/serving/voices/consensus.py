"""Finds the consensus of several answers: pairs, clusters, dissenters, and the medoid (the most central
answer).

Only answers in the same language are compared. This module does no I/O: `comparing` measures how much the
answers agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import msgspec

_DIGITS = 4

Agreements = Mapping[tuple[int, int], float]
"""Maps pairs of answers (their indices, the lower one first) to their agreement, 0 to 1. Answers in different
languages have no entry.
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """The measure by which the answers were compared, with its threshold."""

    name: str
    threshold: float
    """Agreement at or above which two answers are in one cluster."""
    base: str | None = None
    """The base whose vectors were compared, if any were."""


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """One model's answer, to be compared with others."""

    voice: int
    """Index of the model that gave the answer."""
    language: str | None
    """The answer's language; None if the language is uncertain."""
    text: str


class AnswerPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers and how much they agree."""

    voices: tuple[int, int]
    comparable: bool
    """False for answers in different languages."""
    agreement: float | None
    """Agreement of the two answers, 0 to 1; None if they are not comparable."""


class LanguageConsensus(msgspec.Struct, frozen=True, kw_only=True):
    """The consensus of the answers in one language."""

    language: str | None
    voices: tuple[int, ...]
    agreement: float | None
    """Mean agreement over all pairs of answers; None if there is only one answer."""
    clusters: tuple[tuple[int, ...], ...]
    """Clusters of models whose answers agree with each other, the largest cluster first."""
    dissenting: tuple[int, ...]
    """The models whose answers are outside the largest cluster; empty if no single cluster is the largest."""
    medoid: int
    """The model whose answer agrees most with the other answers in this language."""


class Consensus(msgspec.Struct, frozen=True, kw_only=True):
    """The consensus of all answers. If no model has answered, `medoid` and `answer` are None."""

    measure: str
    """Name of the measure: `chrF` (wording) or `cosine` (of embedding vectors)."""
    base: str | None
    """The base whose vectors were compared; None for `chrF`."""
    threshold: float
    """Agreement at or above which two answers are in one cluster."""
    agreement: float | None
    """Mean agreement over all comparable pairs; None if there is no such pair."""
    pairs: tuple[AnswerPair, ...]
    languages: tuple[LanguageConsensus, ...]
    """The consensus in each language, with the language of the most answers first."""
    clusters: tuple[tuple[int, ...], ...]
    dissenting: tuple[int, ...]
    """The models whose answers dissent from the other answers in the same language."""
    medoid: int | None
    """The model whose answer agrees most with the others, in the language of the most answers."""
    answer: str | None
    """Text of the answer of the model in `medoid`."""
    reason: str
    """The result of the comparison in one sentence, for people."""


def build_consensus(answers: Sequence[ComparedAnswer], agreements: Agreements, measure: Measure) -> Consensus:
    """Compute the consensus of `answers`, which are in the order of the models, from the agreement of each
    pair by `measure`.
    """
    groups: dict[str | None, list[int]] = {}
    for one in answers:
        groups.setdefault(one.language, []).append(one.voice)
    languages = sorted(
        (
            _of_language(language, voices, agreements, measure.threshold)
            for language, voices in groups.items()
        ),
        key=lambda group: (-len(group.voices), -(group.agreement or 0.0), group.voices),
    )
    medoid = languages[0].medoid if languages else None
    pairs = [(one.voice, other.voice) for one, other in combinations(answers, 2)]
    return Consensus(
        measure=measure.name,
        base=measure.base,
        threshold=measure.threshold,
        agreement=_mean(list(agreements.values())),
        pairs=tuple(
            AnswerPair(voices=pair, comparable=pair in agreements, agreement=_rounded(agreements.get(pair)))
            for pair in pairs
        ),
        languages=tuple(languages),
        clusters=tuple(cluster for group in languages for cluster in group.clusters),
        dissenting=tuple(sorted(voice for group in languages for voice in group.dissenting)),
        medoid=medoid,
        answer=next((one.text for one in answers if one.voice == medoid), None),
        reason=_reason(languages),
    )


def _of_language(
    language: str | None, voices: Sequence[int], agreements: Agreements, threshold: float
) -> LanguageConsensus:
    clusters = form_clusters(voices, agreements, threshold)
    return LanguageConsensus(
        language=language,
        voices=tuple(voices),
        agreement=_mean([agreements[pair] for pair in combinations(voices, 2)]),
        clusters=clusters,
        dissenting=_dissenting(clusters),
        medoid=max(voices, key=lambda voice: (_closeness(voice, voices, agreements), -voice)),
    )


def form_clusters(
    voices: Sequence[int], agreements: Agreements, threshold: float
) -> tuple[tuple[int, ...], ...]:
    """Cluster `voices` (models) by complete linkage: any two answers in a cluster agree by at least
    `threshold`.

    Of all clusters, the two whose lowest agreement is highest are joined first. Returns the clusters, largest
    first.
    """
    clusters = [[voice] for voice in voices]
    while len(clusters) > 1:
        links = {
            (i, j): min(agreements[min(a, b), max(a, b)] for a in clusters[i] for b in clusters[j])
            for i, j in combinations(range(len(clusters)), 2)
        }
        (i, j), least = max(links.items(), key=lambda link: link[1])
        if least < threshold:
            break
        clusters[i] = sorted(clusters[i] + clusters.pop(j))
    return tuple(sorted(map(tuple, clusters), key=lambda cluster: (-len(cluster), cluster)))


def _dissenting(clusters: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the models outside the largest cluster; empty if no single cluster is the largest."""
    if len(clusters) < 2 or len(clusters[0]) == len(clusters[1]):
        return ()
    return tuple(sorted(voice for cluster in clusters[1:] for voice in cluster))


def _closeness(voice: int, voices: Sequence[int], agreements: Agreements) -> float:
    return sum(agreements[min(voice, other), max(voice, other)] for other in voices if other != voice)


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _reason(languages: Sequence[LanguageConsensus]) -> str:
    if not languages:
        return "No model answered, so there are no answers to compare."
    if all(len(group.voices) == 1 for group in languages):
        if len(languages) == 1:
            return "Only one model answered, so there are no other answers to compare with."
        spoken = ", ".join(map(_spoken, languages))
        return f"Each answer is in a different language ({spoken}), so the answers cannot be compared."
    compared = "; ".join(_finding(group) for group in languages if len(group.voices) > 1)
    alone = [group for group in languages if len(group.voices) == 1]
    if alone:
        rest = ", ".join(f"answer {group.voices[0]} ({_spoken(group)})" for group in alone)
        compared += f"; {rest} is not compared, because no other answer is in the same language"
    return f"{compared}."


def _finding(group: LanguageConsensus) -> str:
    count, largest = len(group.voices), len(group.clusters[0])
    where = f"answers in {_spoken(group)}"
    if largest == count:
        return f"All {count} {where} agree (average agreement {group.agreement:.2f})"
    if largest == 1:
        return f"No two of the {count} {where} agree (average agreement {group.agreement:.2f})"
    if not group.dissenting:
        return f"The {count} {where} fall into groups of equal size (average agreement {group.agreement:.2f})"
    voices = ", ".join(map(str, group.dissenting))
    many = len(group.dissenting) > 1
    dissent = f"answers {voices} differ" if many else f"answer {voices} differs"
    return f"{largest} of {count} {where} agree, and {dissent} (average agreement {group.agreement:.2f})"


def _spoken(group: LanguageConsensus) -> str:
    return group.language or "no certain language"
