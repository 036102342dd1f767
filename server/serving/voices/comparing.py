"""Measures how much several answers agree: by the vectors of an embedding base, else by their wording.

Only answers in the same language are compared. This happens outside the event loop, since long answers take
long to compare.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations

import numpy as np

from server.errors import ApiError, EngineError, context_exceeded
from server.exchange import Exchange
from server.serving.embeddings import embed_all
from server.serving.one_thread import OneThread
from server.serving.resolution import Resolution, resolve_base
from server.serving.service import BaseService
from server.serving.voices.agreement import agreement, character_grams
from server.serving.voices.consensus import (
    Agreements,
    ComparedAnswer,
    Consensus,
    Measure,
    build_consensus,
)

WORDING = Measure("chrF", 0.4)
COSINE_THRESHOLD = 0.8
"""Default cosine at or above which two answers are in one cluster. The best value depends on the embedding
base.
"""

log = logging.getLogger("oneseek.api")


async def find_consensus(
    exchange: Exchange,
    answers: Sequence[ComparedAnswer],
    aside: OneThread,
    embedder: BaseService | None = None,
    threshold: float | None = None,
) -> Consensus:
    """Compare `answers`, and return their consensus. They are compared by the vectors of the base `embedder`,
    if it is set and can embed all of them now, else by their wording.

    Two answers agree if their similarity is at least `threshold`. Default: the threshold of the measure used.
    """
    languages = Counter(one.language for one in answers)
    texts = {one.voice: one.text for one in answers if languages[one.language] > 1}
    pairs = [
        (one.voice, other.voice) for one, other in combinations(answers, 2) if one.language == other.language
    ]
    measure, found = WORDING, None
    if embedder is not None and pairs:
        measure = Measure("cosine", COSINE_THRESHOLD, embedder.runtime.name)
        found = await _by_vectors(exchange, embedder, texts, pairs)
    if found is None:
        measure, found = WORDING, await _by_wording(aside, texts, pairs)
    if threshold is not None:
        measure = Measure(measure.name, threshold, measure.base)
    return build_consensus(answers, found, measure)


async def _by_wording(
    aside: OneThread, texts: Mapping[int, str], pairs: Sequence[tuple[int, int]]
) -> Agreements:
    grams = {voice: await aside.run(partial(character_grams, text)) for voice, text in texts.items()}
    return {
        (one, other): await aside.run(partial(agreement, grams[one], grams[other])) for one, other in pairs
    }


async def _by_vectors(
    exchange: Exchange, embedder: BaseService, texts: Mapping[int, str], pairs: Sequence[tuple[int, int]]
) -> Agreements | None:
    """Return the cosine of each pair of answers, 0 to 1; None if the base cannot embed now, which is logged
    with the reason.
    """
    try:
        vectors = await embed_texts(exchange, embedder, list(texts.values()))
    except (ApiError, EngineError) as error:
        log.warning(
            "base model %s cannot compute embeddings now, so the answers of several models "
            "are compared by their wording instead of their meaning: %s",
            embedder.runtime.name,
            error,
        )
        return None
    found = dict(zip(texts, map(np.asarray, vectors), strict=True))
    return {(one, other): float(np.clip(found[one] @ found[other], 0.0, 1.0)) for one, other in pairs}


async def embed_texts(
    exchange: Exchange, service: BaseService, texts: Sequence[str]
) -> list[tuple[float, ...]]:
    """Return the vector that the embedding base makes of each text. The request's answers must be complete:
    its places in the queue are given back first.

    Raises `ApiError` for a text that is longer than the base's context, and the errors of `Engine.embed`.
    """
    generation, runtime = service.generation, service.runtime
    context = runtime.info.context
    prompts: list[tuple[int, ...]] = []
    for text in texts:
        prompts.append(await generation.encode(text, "answer"))
        if len(prompts[-1]) > context:
            raise context_exceeded("answer", context, len(prompts[-1]))
    if exchange.held is not None:
        exchange.held.close()  # the answers are there, and their base may have to make way for this one
    await generation.ready()
    # Nothing may be awaited in between: these places are what keeps the base loaded.
    together = min(len(prompts), max(1, generation.gate.places.limit // 4))
    generation.gate.hold(exchange, "", together)
    resolution: Resolution = resolve_base(runtime.info, runtime.name)
    return await embed_all(runtime, exchange, resolution, prompts, None, together)
