"""Decisions that are remembered are the router's own, of the present adapters and of one key."""

from __future__ import annotations

from collections.abc import Mapping

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Route, RouteQuery, Router
from routing.settings import LanguageRow, RoutingSettings
from server.serving.routes import MOST_CHARACTERS, MOST_ROUTES, RememberedRoutes
from tests.server.http_server import BASE, BASE_DIGEST, EN, SV

SETTINGS = RoutingSettings(languages=(LanguageRow("en", EN), LanguageRow("sv", SV)))


class CountingRouter(Router):
    """A router that counts how often it decides."""

    decided = 0

    def decide(self, question: RouteQuery, catalogue: object) -> Route:
        self.decided += 1
        return super().decide(question, catalogue)  # pyright: ignore[reportArgumentType] # as it was given


def test_the_same_question_of_the_same_key_is_decided_once(voices: Mapping[str, Adapter]) -> None:
    router = CountingRouter(SETTINGS, ProfileDetector(SETTINGS))
    served = ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE)
    routes, names = RememberedRoutes(), served.snapshot
    question = RouteQuery(model="oneseek", turns=("Vem är du?",))
    route = routes.decide("a", question, router, names)
    assert route.target == ((SV, 1.0),)
    assert routes.decide("a", question, router, names) == route
    assert router.decided == 1
    routes.decide("b", question, router, names)
    assert router.decided == 2, "a key's own: the time tells no other key"
    routes.decide("a", RouteQuery(model="base", turns=("Vem är du?",)), router, names)
    assert router.decided == 3
    fewer = ServedAdapters([voices["en"]], base_digest=BASE_DIGEST, base_name=BASE).snapshot
    assert routes.decide("a", question, router, fewer).target == ()
    other = CountingRouter(SETTINGS, ProfileDetector(SETTINGS))
    routes.decide("a", question, other, fewer)
    assert other.decided == 1


def test_little_is_remembered(voices: Mapping[str, Adapter]) -> None:
    router = CountingRouter(SETTINGS, ProfileDetector(SETTINGS))
    names = ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE).snapshot
    routes = RememberedRoutes()
    for number in range(MOST_ROUTES + 1):
        routes.decide("", RouteQuery(model="base", turns=(str(number),)), router, names)
    routes.decide("", RouteQuery(model="base", turns=("0",)), router, names)
    assert router.decided == MOST_ROUTES + 2
    assert routes.remembers(RouteQuery(turns=("x" * MOST_CHARACTERS,)))
    assert not routes.remembers(RouteQuery(turns=("x" * (MOST_CHARACTERS + 1),)))
