"""The names of several bases: each is one base's, however it is written, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.route import RouteQuery, UnknownNameError
from server.config.settings import RoutingOptions
from server.config.values import SettingsError
from server.live.bases.deciding import decide, named_base, place_of
from server.live.bases.languages import LanguageRouting, place_names, routing_settings

BASES = ("mistral", "gpt-sw3")
ALIASES = st.sampled_from(["one", "two", "three", "four"])
LANGUAGES = st.sampled_from(["sv", "en", None])


def base(name: str, speakers: dict[str, str | None]) -> ServedAdapters:
    adapters = [
        Adapter(
            alias=alias,
            version="v1",
            digest=f"sha256:{alias}",
            path=Path(alias),
            rank=1,
            alpha=1.0,
            targets=(),
            language=language,
        )
        for alias, language in speakers.items()
    ]
    return ServedAdapters(adapters, base_digest=f"sha256:{name}", base_name=name)


@given(
    speakers=st.dictionaries(ALIASES, LANGUAGES, max_size=4),
    places=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    configured=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_name_is_one_bases(
    speakers: dict[str, str | None], places: list[int], configured: bool
) -> None:
    homes = dict(zip(speakers, places, strict=False))
    served = [
        base(name, {alias: speakers[alias] for alias in speakers if homes[alias] == place})
        for place, name in enumerate(BASES)
    ]
    chosen = next(iter(speakers), None) if configured else None
    options = RoutingOptions(languages={"sv": f"{BASES[homes[chosen]]}:{chosen}"} if chosen else {})
    languages, default = place_names(options, served)
    routing = LanguageRouting(served, options, {code: name for code, (_, name) in languages.items()}, default)
    known = routing.names()
    for alias, place in homes.items():
        for spelled in (alias, alias.upper(), f"{alias}@v1", f"{BASES[place]}:{alias}"):
            assert place_of(spelled, known) == place
            assert named_base(RouteQuery(header=spelled), known)[0] == place
        assert place_of(f"{BASES[1 - place]}:{alias}", known) is None
        assert known.is_adapter(alias)
        assert not known.is_base(alias)
    for place, name in enumerate(BASES):
        assert (
            place_of(name, known)
            == place_of(f"{name}:base", known)
            == place_of(f"{name}:auto", known)
            == place
        )
        assert known.is_base(name)
    assert place_of("base", known) == 0
    for spelled in ("nobody", "west:one", "one@v9", "mistral:nobody"):
        try:
            named_base(RouteQuery(model=spelled), known)
        except UnknownNameError:
            continue
        assert spelled == "one@v9"  # which is for its base to say
        assert "one" in homes
    for code in ("sv", "en"):
        found = [alias for alias, language in speakers.items() if language == code]
        if code == "sv" and chosen:
            assert known.index_of(code) == homes[chosen]
        elif len(found) == 1:
            assert known.index_of(code) == homes[found[0]]
        elif len({homes[alias] for alias in found}) != 1:
            assert known.index_of(code) is None


def test_a_base_may_be_called_like_a_language() -> None:
    """Its name alone means who answers the language; with a colon it is the base's."""
    served = [base("sv", {"voice": "sv"}), base("en", {}), base("west", {"x": "en"})]
    routing = LanguageRouting(served, RoutingOptions(), {}, None)

    def answers(name: str) -> tuple[str, tuple[str, ...]]:
        index, route = decide(RouteQuery(model=name), routing)
        return served[index].base_name, tuple(alias for alias, _ in route.target)

    assert answers("sv") == ("sv", ("sv",))
    assert served[0].resolve("sv").alias == "voice"
    assert answers("SV:voice") == ("sv", ("voice",))
    assert answers("sv:base") == ("sv", ())
    assert answers("sv:auto") == ("sv", ())
    assert answers("en") == ("west", ("en",))
    assert served[2].resolve("en").alias == "x"
    assert answers("en:base") == ("en", ())
    index, route = decide(RouteQuery(turns=("Who are you, and what can you tell me?",)), routing)
    assert (served[index].base_name, route.target) == ("west", (("x", 1.0),))


def test_a_base_may_have_an_adapter_of_its_own_name() -> None:
    served = base("mini", {"mini": None, "two": None})
    router = LanguageRouting([served], RoutingOptions(), {}, None).server
    targets = {
        name: router.decide(RouteQuery(model=name), served.snapshot).target
        for name in ("mini", "mini:mini", "mini:two", "mini:base")
    }
    assert targets == {
        "mini": (("mini", 1.0),), "mini:mini": (("mini", 1.0),), "mini:two": (("two", 1.0),), "mini:base": ()
    }  # fmt: skip


def test_an_adapter_with_examples_answers_its_topic_and_takes_no_language() -> None:
    own = base("mistral", {"general": "en", "kitchen": "en"})
    general, kitchen = own.adapters()
    examples = ("how do I cook rice", "a recipe for tomato soup", "how long do I bake bread")
    served = ServedAdapters(
        [general, replace(kitchen, examples=examples)], base_digest="sha256:mistral", base_name="mistral"
    )
    assert served.languages() == {"en": "general"}
    asked = {"how do I roast a chicken": ("kitchen", "topic"), "who are you": ("general", "language")}
    router = LanguageRouting([served], RoutingOptions(), {}, None).server
    for text, (alias, reason) in asked.items():
        route = router.decide(RouteQuery(turns=(text,)), served.snapshot)
        assert (route.target, str(route.reason)) == (((alias, 1.0),), reason)
    off = LanguageRouting([served], RoutingOptions(topics=False), {}, None).server
    assert off.decide(RouteQuery(turns=("how do I roast a chicken",)), served.snapshot).topic is None


def test_weights_and_the_other_settings_reach_the_router() -> None:
    served = base("mistral", {"one": "sv", "two": "en"})
    options = RoutingOptions(weights={"sv": "9"}, sure=0.99, stay=0.5, history=2, hint=1, other_prior=0.1)
    routed = routing_settings(served.languages(), options, None)
    assert {row.code: row.weight for row in routed.languages} == {"sv": 9.0, "en": 1.0}
    assert (routed.sure, routed.stay, routed.history, routed.hint, routed.other_prior) == (
        0.99,
        0.5,
        2,
        1,
        0.1,
    )
    assert (routed.default, routed.without_evidence) == (None, "two")
    assert routing_settings({"en-GB": "three"}, options, None).without_evidence == "three"
    assert routing_settings({"sv": "one"}, options, None).without_evidence is None
    with pytest.raises(SettingsError, match=r"routing.weights.*'fr'.*en, sv"):
        LanguageRouting([served], RoutingOptions(weights={"fr": "2"}), {}, None).check_weights()
