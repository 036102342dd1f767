"""Route texts of known language, and count how many go to the right adapter."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from routing.detect import ProfileDetector
from routing.evaluate.texts import LabelledText
from routing.route import RouteQuery, Router
from routing.settings import LanguageRow, RoutingSettings, detection_code

TRIALS: Final = 3
"""How many times the routing of a text is timed. The fastest time is used, because the others include
unrelated work.
"""
FIGURES = ("swedish_found", "english_kept_out", "nordic_kept_out", "other_kept_out", "english_found")


@dataclass(frozen=True, slots=True)
class Proportion:
    """A number of successes out of a total."""

    hits: int
    of: int

    @property
    def percent(self) -> float:
        """The proportion in percent, to two decimal places."""
        return round(100 * self.hits / self.of, 2)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval in percent (Wilson, 1927)."""
        z, n, p = 1.959964, self.of, self.hits / self.of
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return round(100 * max(middle - half, 0), 2), round(100 * min(middle + half, 1), 2)


@dataclass(frozen=True, slots=True)
class RoutedText:
    """A text of known language, and the route that the router chose for it."""

    labelled: LabelledText
    adapter: str | None
    """Adapter that the text was routed to: `sv`, `en`, or None for the base."""
    sure: bool
    right: bool
    """True if the text went to the adapter of its language, or to the base if its language has no adapter."""
    seconds: float
    """CPU seconds that routing took: other programs on the machine do not count."""


class _BothAdapters:
    def is_adapter(self, name: str) -> bool:
        return name in ("sv", "en")

    def is_base(self, name: str) -> bool:
        return False

    def has_base(self, name: str) -> bool:
        return False


class Judge:
    """Routes texts with default settings, an English and a Swedish adapter, to evaluate the decisions.

    `without_evidence` is the adapter for texts that give no evidence of a language. A server with an English
    adapter sets it to that adapter; most figures are measured without it.
    """

    def __init__(self, default: str | None = None, without_evidence: str | None = None) -> None:
        rows = (LanguageRow("en", "en"), LanguageRow("sv", "sv"))
        settings = RoutingSettings(languages=rows, default=default, without_evidence=without_evidence)
        self._router, self._names = Router(settings, ProfileDetector(settings)), _BothAdapters()

    def adapter(
        self, *turns: str, accept_language: str | None = None, system: str | None = None
    ) -> str | None:
        """Route a conversation, given as the user's messages. Returns the adapter `sv` or `en`, or None for
        the base.
        """
        query = RouteQuery(turns=turns, accept_language=accept_language, system=system)
        route = self._router.decide(query, self._names)
        return route.target[0][0] if route.target else None

    def route(self, labelled: LabelledText, accept_language: str | None = None) -> RoutedText:
        """Route a text as a conversation of one message, and time it."""
        query = RouteQuery(turns=(labelled.text,), accept_language=accept_language)
        route, seconds = self._router.decide(query, self._names), math.inf
        for _ in range(TRIALS):
            started = time.thread_time()
            route = self._router.decide(query, self._names)
            seconds = min(seconds, time.thread_time() - started)
        adapter = route.target[0][0] if route.target else None
        right = adapter == expected(labelled.language)
        return RoutedText(labelled, adapter, route.language is not None, right, seconds)


def expected(language: str) -> str | None:
    """Return the adapter that should answer a language; None for the base."""
    return language if language in ("sv", "en") else None


def route_texts(
    texts: Iterable[LabelledText], accept_language: str | None = None, judge: Judge | None = None
) -> list[RoutedText]:
    """Route each text as a conversation of one message."""
    judge = judge or Judge()
    return [judge.route(text, accept_language) for text in texts]


def shares(judged: Sequence[RoutedText]) -> dict[str, Proportion]:
    """Return the proportion for each figure in `FIGURES`, such as `swedish_found`, for which there are texts.
    Also return the proportion of texts that were routed correctly, as `right`.
    """
    seen = {detection_code(j.labelled.language) for j in judged}

    def share(languages: set[str], adapter: str, *, sent: bool) -> Proportion:
        of = [j.adapter == adapter for j in judged if detection_code(j.labelled.language) in languages]
        return Proportion(sum(hit is sent for hit in of), len(of))

    found = {
        "swedish_found": share({"sv"}, "sv", sent=True),
        "english_kept_out": share({"en"}, "sv", sent=False),
        "nordic_kept_out": share({"da", "no"}, "sv", sent=False),
        "other_kept_out": share(seen - {"sv", "en", "da", "no"}, "sv", sent=False),
        "english_found": share({"en"}, "en", sent=True),
        "right": Proportion(sum(j.right for j in judged), len(judged)),
    }
    return {name: one for name, one in found.items() if one.of}


def percentages(judged: Sequence[RoutedText]) -> dict[str, float | int | None]:
    """Return each figure in `FIGURES`, such as `swedish_found`, in percent (None if there are no texts for
    it), and the number of texts as `texts`.
    """
    found = shares(judged)
    named: dict[str, float | int | None] = {
        name: found[name].percent if name in found else None for name in FIGURES
    }
    return named | {"texts": len(judged)}
