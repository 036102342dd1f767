"""What several answers agree on: pairs, clusters, who dissents, and the answer in the middle.

Answers are compared within a language only. Pure, but for `find_consensus`, which works apart from the event
loop: the work grows with the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import msgspec

from server.serving.one_thread import OneThread
from server.serving.voices.agreement import agreement, character_grams

MEASURE = "chrF"
AGREES = 0.4
"""Agreement from which two answers are of one cluster."""
_DIGITS = 4

Agreements = Mapping[tuple[int, int], float]
"""Two voices, the lower number first → how far they agree; only those that are comparable."""


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """An answer that takes part."""

    voice: int
    """Its number."""
    language: str | None
    """Language that it is compared in; None if nothing in it tells one."""
    text: str


class AnswerPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers."""

    voices: tuple[int, int]
    comparable: bool
    """False for answers in different languages."""
    agreement: float | None
    """0 to 1; None if not comparable."""


class LanguageConsensus(msgspec.Struct, frozen=True, kw_only=True):
    """The answers in one language."""

    language: str | None
    voices: tuple[int, ...]
    agreement: float | None
    """Mean over the pairs; None for one answer."""
    clusters: tuple[tuple[int, ...], ...]
    """Voices that all agree with each other, the largest cluster first."""
    dissenting: tuple[int, ...]
    """Voices outside the largest cluster, if it is larger than every other."""
    medoid: int
    """The voice whose answer agrees most with the others."""


class Consensus(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers agree on. Without any answer, medoid and answer are None."""

    measure: str
    threshold: float
    """Agreement from which two answers are of one cluster."""
    agreement: float | None
    """Mean over all comparable pairs; None without any."""
    pairs: tuple[AnswerPair, ...]
    languages: tuple[LanguageConsensus, ...]
    """The language with most answers first."""
    clusters: tuple[tuple[int, ...], ...]
    dissenting: tuple[int, ...]
    """Those that dissent in their language."""
    medoid: int | None
    """That of the first language."""
    answer: str | None
    """The medoid's text."""
    reason: str
    """What was found, in one sentence."""


async def find_consensus(answers: Sequence[ComparedAnswer], aside: OneThread) -> Consensus:
    """Compare `answers`; each text and each pair is worked on in a turn of its own."""
    grams = {one.voice: await aside.run(partial(character_grams, one.text)) for one in answers}
    found: dict[tuple[int, int], float] = {}
    for one, other in combinations(answers, 2):
        if one.language == other.language:
            compare = partial(agreement, grams[one.voice], grams[other.voice])
            found[one.voice, other.voice] = await aside.run(compare)
    return build_consensus(answers, found)


def build_consensus(answers: Sequence[ComparedAnswer], agreements: Agreements) -> Consensus:
    """The consensus of `answers`, in the order of their voices, whose pairs agree so far."""
    groups: dict[str | None, list[int]] = {}
    for one in answers:
        groups.setdefault(one.language, []).append(one.voice)
    languages = sorted(
        (_of_language(language, voices, agreements) for language, voices in groups.items()),
        key=lambda group: (-len(group.voices), -(group.agreement or 0.0), group.voices),
    )
    medoid = languages[0].medoid if languages else None
    pairs = [(one.voice, other.voice) for one, other in combinations(answers, 2)]
    return Consensus(
        measure=MEASURE,
        threshold=AGREES,
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


def _of_language(language: str | None, voices: Sequence[int], agreements: Agreements) -> LanguageConsensus:
    clusters = form_clusters(voices, agreements)
    return LanguageConsensus(
        language=language,
        voices=tuple(voices),
        agreement=_mean([agreements[pair] for pair in combinations(voices, 2)]),
        clusters=clusters,
        dissenting=_dissenting(clusters),
        medoid=max(voices, key=lambda voice: (_closeness(voice, voices, agreements), -voice)),
    )


def form_clusters(voices: Sequence[int], agreements: Agreements) -> tuple[tuple[int, ...], ...]:
    """Clusters of `voices` by complete linkage: within one, every two agree by at least `AGREES`.

    The two clusters whose least agreement is highest are joined first. Returns the largest first.
    """
    clusters = [[voice] for voice in voices]
    while len(clusters) > 1:
        links = {
            (i, j): min(agreements[min(a, b), max(a, b)] for a in clusters[i] for b in clusters[j])
            for i, j in combinations(range(len(clusters)), 2)
        }
        (i, j), least = max(links.items(), key=lambda link: link[1])
        if least < AGREES:
            break
        clusters[i] = sorted(clusters[i] + clusters.pop(j))
    return tuple(sorted(map(tuple, clusters), key=lambda cluster: (-len(cluster), cluster)))


def _dissenting(clusters: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Nobody, unless one cluster is larger than all others: else there is nothing to dissent from."""
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
        return "No voice answered, so there is nothing to compare."
    if all(len(group.voices) == 1 for group in languages):
        if len(languages) == 1:
            return "Only one voice answered, so there is nothing to compare."
        spoken = ", ".join(map(_spoken, languages))
        return f"Each answer is in a language of its own ({spoken}), so none can be compared."
    compared = "; ".join(_finding(group) for group in languages if len(group.voices) > 1)
    alone = [group for group in languages if len(group.voices) == 1]
    if alone:
        rest = ", ".join(f"voice {group.voices[0]} ({_spoken(group)})" for group in alone)
        compared += f"; {rest} is compared with none, being alone in its language"
    return f"{compared}."


def _finding(group: LanguageConsensus) -> str:
    count, largest = len(group.voices), len(group.clusters[0])
    where = f"answers in {_spoken(group)}"
    if largest == count:
        return f"All {count} {where} agree ({group.agreement:.2f} on average)"
    if largest == 1:
        return f"No two of the {count} {where} agree ({group.agreement:.2f} on average)"
    if not group.dissenting:
        return f"The {count} {where} fall into groups of equal size ({group.agreement:.2f} on average)"
    voices = ", ".join(map(str, group.dissenting))
    many = len(group.dissenting) > 1
    dissent = f"voices {voices} dissent" if many else f"voice {voices} dissents"
    return f"{largest} of {count} {where} agree and {dissent} ({group.agreement:.2f} on average)"


def _spoken(group: LanguageConsensus) -> str:
    return group.language or "no certain language"
