from __future__ import annotations

import pytest

from routing.detect import ProfileDetector
from routing.explain import explain
from routing.route import Reason, Route, RouteQuery, Router
from routing.settings import RoutingSettings


class Everything:
    def is_adapter(self, name: str) -> bool:
        return True

    def is_base(self, name: str) -> bool:
        return False

    def has_base(self, name: str) -> bool:
        return False


def lines(settings: RoutingSettings, detector: ProfileDetector, question: RouteQuery) -> str:
    return "\n".join(explain(Router(settings, detector).decide(question, Everything())))


def test_it_says_what_was_decided_and_why(settings: RoutingSettings, detector: ProfileDetector) -> None:
    told = lines(settings, detector, RouteQuery(turns=("Förklara `x = 1`, tack",)))
    assert "adapter   oneseek-sv" in told
    assert "reason    language" in told
    assert "language  sv" in told
    assert "likely    sv 9" in told or "likely    sv 100" in told
    assert "förklara (sv)" in told
    assert "evidence  left out: code" in told


@pytest.mark.parametrize(
    ("header", "shown"),
    [("sv=0.7,en=-0.3", "0.7 × sv + -0.3 × en"), ("base", "none, the base alone"), ("sv", "adapter   sv")],
)
def test_it_shows_the_choice(
    settings: RoutingSettings, detector: ProfileDetector, header: str, shown: str
) -> None:
    told = lines(settings, detector, RouteQuery(header=header, turns=("42",)))
    assert shown in told
    assert "language  undecided" in told


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words(reason: Reason) -> None:
    assert len(explain(Route((), None, 0.0, reason, None))) == 2
