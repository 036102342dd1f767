"""Caches the router's decisions for a while, since clients whose requests were refused send the same question
again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from routing.route import AdapterNames, Route, RouteQuery, Router

MOST_ROUTES = 512
"""Maximum number of routing decisions that are remembered."""
MOST_CHARACTERS = 2048
"""Maximum length in characters of a question that is remembered."""


class RememberedRoutes:
    """Cache of the router's decisions, emptied when the router or the adapter names change.

    Each API key has its own entries, so that response times reveal nothing about other keys.
    """

    def __init__(self) -> None:
        self._routes: OrderedDict[bytes, Route] = OrderedDict()
        self._of: tuple[Router, AdapterNames] | None = None

    def remembers(self, question: RouteQuery) -> bool:
        """True if `question` is short enough to be remembered."""
        texts = (*question.turns, *question.opening, question.system or "")
        return sum(map(len, texts)) <= MOST_CHARACTERS

    def decide(self, tenant: str, question: RouteQuery, router: Router, names: AdapterNames) -> Route:
        """Return the decision of `router.decide`, from the cache if possible. Raises the errors of
        `decide`.
        """
        if self._of is None or self._of[0] is not router or self._of[1] is not names:
            self._routes.clear()
            self._of = router, names
        text = repr((tenant, question)).encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(text, digest_size=16).digest()
        route = self._routes.pop(key, None) or router.decide(question, names)
        self._routes[key] = route
        if len(self._routes) > MOST_ROUTES:
            self._routes.popitem(last=False)
        return route
