"""Chooses the replica for a request: one that has computed the prompt's prefix before, else one that has
loaded the request's adapters, else the least loaded one.

A replica is skipped if it has over `slack` requests more than the least loaded one. Prefixes are identified
by hashes of blocks of tokens; each hash also covers all tokens before its block. Such cache-aware routing
follows "SGLang: Efficient Execution of Structured Language Model Programs" (Zheng et al., 2024). If the
chosen replica has evicted the prefix meanwhile, it computes the prefix again.

Use it on the event loop only.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from server.request import EmbeddingRequest, GenerationRequest

BLOCK = 16
"""Number of tokens in a block of a prompt; a block's tokens are hashed together."""
MOST_BLOCKS = 512
"""Maximum number of blocks of a prompt that are hashed: 8,192 tokens are enough to tell conversations
apart.
"""
MOST_KEYS = 100_000
"""Maximum number of block hashes that are remembered (about 20 MB). The least recently used are dropped
first.
"""

PlacementReason = Literal["prefix", "adapter", "load"]
"""Why a replica was chosen: it has computed the prompt's prefix, it holds the adapters, or it is least
loaded.
"""
REASONS: tuple[PlacementReason, ...] = get_args(PlacementReason)


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """How busy a replica is, and which adapters it holds, when a request is placed."""

    load: int
    """Number of requests that run or wait in the replica."""
    resident: frozenset[str] = frozenset()
    """Digests of the adapters that the replica holds."""


@dataclass(frozen=True, slots=True)
class ReplicaChoice:
    """The order in which to try the replicas for a request, and why the first replica was chosen."""

    ranked: tuple[str, ...]
    """Ids of all replicas in the order in which to try them; the chosen replica comes first."""
    reason: PlacementReason
    known: bool
    """True if any replica has computed a prefix of the prompt."""

    @property
    def first(self) -> str:
        """Id of the chosen replica; empty if there is no replica."""
        return self.ranked[0] if self.ranked else ""


def prefix_keys(request: GenerationRequest | EmbeddingRequest) -> tuple[int, ...]:
    """Return a hash for each full block of the prompt's tokens, to find prompts with the same beginning.

    Two prompts have the same hash if they are equal up to the block's end. The adapters and the cache salt
    are part of every hash, as in an engine's prefix cache.
    """
    prompt = request.prompt
    key = hash((request.adapter_mix, request.cache_salt))
    keys: list[int] = []
    for start, end in pairwise(range(0, min(len(prompt), BLOCK * MOST_BLOCKS) + 1, BLOCK)):
        key = hash((key, prompt[start:end]))
        keys.append(key)
    return tuple(keys)


class ReplicaPlacement:
    """Remembers which replica has computed which blocks of prompts, and ranks the replicas for a request."""

    def __init__(self, slack: int, most_keys: int = MOST_KEYS) -> None:
        self._slack = slack
        self._most_keys = most_keys
        self._holders: OrderedDict[int, set[str]] = OrderedDict()
        """Maps the hash of each block to the ids of the replicas that have computed the block."""
        self.reasons = Counter[PlacementReason]()
        """Maps each reason of placement to the number of requests that were placed for it."""
        self.known = 0
        """Number of requests for which a replica had already computed a prefix of the prompt."""

    def choose(
        self, keys: tuple[int, ...], digests: Collection[str], places: Mapping[str, ReplicaLoad]
    ) -> ReplicaChoice:
        """Rank the replicas in `places` for a prompt with the block hashes `keys` and the adapters
        `digests`.
        """
        if not places:
            return ReplicaChoice((), "load", known=False)
        least = min(place.load for place in places.values())
        near = {name for name, place in places.items() if place.load <= least + self._slack}
        holders = self._find(keys, places.keys())
        warm = {name for name in near if digests and places[name].resident.issuperset(digests)}
        reason: PlacementReason = "load"
        candidates: Collection[str] = places.keys()
        if warm:
            reason, candidates = "adapter", warm
        if holders & near:
            reason, candidates = "prefix", holders & near

        def rank(name: str) -> tuple[bool, int, int]:
            return (
                name not in candidates,
                places[name].load,
                -len(places[name].resident.intersection(digests)),
            )

        return ReplicaChoice(tuple(sorted(places, key=rank)), reason, known=bool(holders))

    def record(self, keys: tuple[int, ...], replica: str, choice: ReplicaChoice) -> None:
        """Record that `replica` computes a prompt with the block hashes `keys`.

        `choice` is the placement decision for this prompt. Its reason is counted, or `load` if `replica` is
        not the chosen one.
        """
        self.reasons[choice.reason if choice.ranked[:1] == (replica,) else "load"] += 1
        self.known += choice.known
        for key in keys:
            self._holders.setdefault(key, set()).add(replica)
            self._holders.move_to_end(key)
        while len(self._holders) > self._most_keys:
            self._holders.popitem(last=False)

    def forget(self, replica: str) -> None:
        """Forget all blocks that `replica`, which has stopped, had computed."""
        for key, holders in list(self._holders.items()):
            holders.discard(replica)
            if not holders:
                del self._holders[key]

    def _find(self, keys: tuple[int, ...], names: Collection[str]) -> set[str]:
        """Return the replicas in `names` that have computed the longest prefix of the prompt."""
        for key in reversed(keys):
            found = self._holders.get(key, set()).intersection(names)
            if found:
                return found
        return set()
