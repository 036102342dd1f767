"""Chooses the replica for a request: one that has its prefix, else one that has its adapters, else any.

A replica is skipped if it has over `slack` requests more than the least loaded one. Prefixes are identified
by hashes of blocks of tokens, each of which covers all tokens before it too. Cache-aware routing follows
"SGLang: Efficient Execution of Structured Language Model Programs" (Zheng et al., 2024). If a replica has
evicted a prefix meanwhile, it computes the prefix again.

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
"""Number of tokens in a block, which are hashed together."""
MOST_BLOCKS = 512
"""Maximum blocks of a prompt that are hashed: 8,192 tokens are enough to tell conversations apart."""
MOST_KEYS = 100_000
"""Maximum blocks that are remembered (about 20 MB). The least recently used are dropped first."""

PlacementReason = Literal["prefix", "adapter", "load"]
"""Reason of a choice: the replica computed the prompt's prefix, holds the adapters, or is least loaded."""
REASONS: tuple[PlacementReason, ...] = get_args(PlacementReason)


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """The state of a replica when a request is placed."""

    load: int
    """Number of requests that the replica runs or queues."""
    resident: frozenset[str] = frozenset()
    """Digests of the adapters that it holds."""


@dataclass(frozen=True, slots=True)
class ReplicaChoice:
    """The order in which to try the replicas for a request, and why the first one was chosen."""

    ranked: tuple[str, ...]
    """Ids of all replicas, the chosen one first."""
    reason: PlacementReason
    known: bool
    """True if any replica has computed a prefix of the prompt."""

    @property
    def first(self) -> str:
        """Id of the chosen replica; empty if there is none."""
        return self.ranked[0] if self.ranked else ""


def prefix_keys(request: GenerationRequest | EmbeddingRequest) -> tuple[int, ...]:
    """Return a key for each whole block of the prompt.

    Two prompts have the same key if they are equal up to the block's end. Adapters and cache salt are part of
    every key, as in an engine's prefix cache.
    """
    prompt = request.prompt
    key = hash((request.adapter_mix, request.cache_salt))
    keys: list[int] = []
    for start, end in pairwise(range(0, min(len(prompt), BLOCK * MOST_BLOCKS) + 1, BLOCK)):
        key = hash((key, prompt[start:end]))
        keys.append(key)
    return tuple(keys)


class ReplicaPlacement:
    """Remembers which replica computed which blocks, and ranks replicas for a request."""

    def __init__(self, slack: int, most_keys: int = MOST_KEYS) -> None:
        self._slack = slack
        self._most_keys = most_keys
        self._holders: OrderedDict[int, set[str]] = OrderedDict()
        """Maps each key of a block to the ids of the replicas that computed it."""
        self.reasons = Counter[PlacementReason]()
        """Number of requests for each reason of placement."""
        self.known = 0
        """Number of requests of whose prompt some replica had computed a prefix."""

    def choose(
        self, keys: tuple[int, ...], digests: Collection[str], places: Mapping[str, ReplicaLoad]
    ) -> ReplicaChoice:
        """Rank the replicas in `places` for a prompt with `keys` and the adapters in `digests`."""
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
        """Note that `replica` now computes a prompt with `keys`, for which `choice` was made."""
        self.reasons[choice.reason if choice.ranked[:1] == (replica,) else "load"] += 1
        self.known += choice.known
        for key in keys:
            self._holders.setdefault(key, set()).add(replica)
            self._holders.move_to_end(key)
        while len(self._holders) > self._most_keys:
            self._holders.popitem(last=False)

    def forget(self, replica: str) -> None:
        """Forget all blocks of a replica that is gone."""
        for key, holders in list(self._holders.items()):
            holders.discard(replica)
            if not holders:
                del self._holders[key]

    def _find(self, keys: tuple[int, ...], names: Collection[str]) -> set[str]:
        """Return those of `names` that computed the longest prefix of the prompt."""
        for key in reversed(keys):
            found = self._holders.get(key, set()).intersection(names)
            if found:
                return found
        return set()
