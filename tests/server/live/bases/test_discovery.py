"""Which adapter goes to which base: by digest and shape, and by the settings where these leave it open."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import AdapterRejectedError
from adapters.lora.manifest import read_manifest
from server.config.bases import BaseOptions
from server.config.settings import RoutingOptions, Settings
from server.config.values import SettingsError
from server.live.bases.neighbours import Neighbour, Neighbours
from server.live.catalogue import Catalogue, open_base, open_catalogues
from tests.server.two_bases import NORTH, SOUTH, TwoBases


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBases:
    return TwoBases.make(tmp_path_factory.mktemp("two"))


@pytest.fixture
def plain(two: TwoBases, tmp_path: Path) -> Settings:
    """Both bases without adapters; what is found under `tmp_path` is all there is."""
    bases = {name: BaseOptions(path=two.bases[name]) for name in (SOUTH, NORTH)}
    return two.settings(tmp_path / "home", bases=bases, routing=RoutingOptions())


def found(two: TwoBases, root: Path, base: str, name: str, **recorded: Any) -> Path:
    """An adapter in the usual place, with what its oneseek.json records."""
    folder = two.adapter(base, root / "lora_adapters" / name, 5)
    if recorded:
        (folder / "oneseek.json").write_text(json.dumps({"format": 1} | recorded))
    return folder


def aliases(catalogues: tuple[Catalogue, ...]) -> dict[str, tuple[str, ...]]:
    return {one.base.name: one.served.aliases() for one in catalogues}


def test_found_adapters_go_to_the_base_that_they_fit(two: TwoBases, plain: Settings, tmp_path: Path) -> None:
    found(two, tmp_path, NORTH, "of-north")
    found(two, tmp_path, SOUTH, "of-south")
    (tmp_path / "lora_adapters" / "broken").mkdir()
    (tmp_path / "lora_adapters" / "broken" / "adapter_config.json").write_text("{")
    catalogues = open_catalogues(plain, tmp_path)
    assert aliases(catalogues) == {SOUTH: ("of-south",), NORTH: ("of-north",)}
    notes = [note for one in catalogues for note in one.notes]
    assert len([note for note in notes if "broken" in note]) == 1
    assert not [note for note in notes if "of-north" in note or "of-south" in note]


def test_what_fits_several_bases_is_served_on_none_until_the_settings_say(
    two: TwoBases, plain: Settings, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(two.bases[NORTH], twin)
    bases = {**plain.bases, "twin": BaseOptions(path=twin)}
    folder = found(two, tmp_path, NORTH, "either")
    catalogues = open_catalogues(replace(plain, bases=bases), tmp_path)
    assert aliases(catalogues) == {SOUTH: (), NORTH: (), "twin": ()}
    (note,) = [note for one in catalogues for note in one.notes if "either" in note]
    assert NORTH in note
    assert "twin" in note

    with pytest.raises(SettingsError) as told:
        open_catalogues(replace(plain, bases=bases, adapters=(str(folder),)), tmp_path)
    assert told.value.name == "adapters"
    bases["twin"] = BaseOptions(path=twin, adapters=(f"mine={folder}",))
    assert aliases(open_catalogues(replace(plain, bases=bases), tmp_path))["twin"] == ("mine",)


def test_adapters_named_for_no_base_go_to_the_one_that_they_fit(
    two: TwoBases, plain: Settings, tmp_path: Path
) -> None:
    folder = two.adapter(NORTH, tmp_path / "elsewhere", 5)
    named = replace(plain, adapters=(f"mine={folder}",))
    assert aliases(open_catalogues(named, tmp_path)) == {SOUTH: (), NORTH: ("mine",)}


def test_an_alias_is_on_one_base(two: TwoBases, plain: Settings, tmp_path: Path) -> None:
    places = {name: two.adapter(name, tmp_path / f"a-{name}", 5) for name in (SOUTH, NORTH)}
    bases = {name: BaseOptions(path=two.bases[name], adapters=(f"same={places[name]}",)) for name in places}
    with pytest.raises(AdapterRejectedError) as told:
        open_catalogues(replace(plain, bases=bases), tmp_path)
    for place in (*map(str, places.values()), SOUTH, NORTH, f"bases.{NORTH}.adapters"):
        assert place in str(told.value)
    bases[NORTH] = BaseOptions(path=two.bases[NORTH], adapters=(f"{SOUTH}={places[NORTH]}",))
    with pytest.raises(AdapterRejectedError, match=SOUTH):
        open_catalogues(replace(plain, bases=bases), tmp_path)


@pytest.mark.parametrize(
    ("languages", "problem"),
    [({"en": "west:x"}, "west"), ({"en": f"{SOUTH}:north-sv"}, "north-sv"), ({"en": "nobody"}, "nobody")],
)
def test_languages_name_what_is_served(
    two: TwoBases, tmp_path: Path, languages: dict[str, str], problem: str
) -> None:
    settings = two.settings(tmp_path / "home", routing=RoutingOptions(languages=languages))
    with pytest.raises(SettingsError, match=problem) as told:
        open_catalogues(settings, tmp_path)
    assert told.value.name == "routing.languages"


def test_a_language_may_mean_a_base_alone(two: TwoBases, tmp_path: Path) -> None:
    from routing.route import RouteQuery
    from server.live.bases.deciding import decide

    routing = RoutingOptions(languages={"en": SOUTH, "sv": f"{NORTH}:base"}, default=f"{NORTH}:north-sv")
    catalogues = open_catalogues(two.settings(tmp_path / "home", routing=routing), tmp_path)
    swedish = RouteQuery(turns=("Vem är du, och vad kan du berätta om vädret här?",))
    place, route = decide(swedish, catalogues[0].routing)
    assert (catalogues[place].base.name, route.target) == (NORTH, ())
    for asked in (RouteQuery(model="sv"), RouteQuery(header="SV", model="oneseek")):
        place, route = decide(asked, catalogues[0].routing)
        assert (catalogues[place].base.name, route.target) == (NORTH, ())
    place, route = decide(RouteQuery(turns=("12345",)), catalogues[0].routing)
    assert (catalogues[place].base.name, route.target) == (NORTH, (("north-sv", 1.0),))


def test_a_language_spoken_on_two_bases_is_nobodys(two: TwoBases, plain: Settings, tmp_path: Path) -> None:
    for name in (SOUTH, NORTH):
        found(two, tmp_path, name, f"fi-{name}")
        config = tmp_path / "lora_adapters" / f"fi-{name}" / "oneseek.json"
        config.write_text(json.dumps({"language": "fi"}))
    catalogues = open_catalogues(plain, tmp_path)
    routing = catalogues[0].routing
    assert "fi" not in routing.languages()
    assert routing.names().index_of("fi") is None
    assert [note for note in catalogues[0].notes if "fi" in note and NORTH in note]
    chosen = replace(plain, routing=RoutingOptions(languages={"fi": f"{NORTH}:fi-north"}))
    routing = open_catalogues(chosen, tmp_path)[0].routing
    assert (routing.languages()["fi"], routing.names().index_of("fi")) == ("fi-north", 1)


def test_an_adapter_is_added_to_the_base_that_it_fits_or_that_is_named(
    two: TwoBases, plain: Settings, tmp_path: Path
) -> None:
    folder = two.adapter(NORTH, tmp_path / "north-folder", 5)
    digests = {one.base.name: one.served.base_digest for one in open_catalogues(plain, tmp_path)}
    assert open_base(plain).digest == digests[SOUTH]
    assert open_base(plain, folder).digest == digests[NORTH]
    assert open_base(plain, folder, SOUTH).digest == digests[SOUTH]
    with pytest.raises(SettingsError, match="west"):
        open_base(plain, folder, "west")


def test_while_serving_a_base_leaves_what_is_anothers(two: TwoBases, plain: Settings, tmp_path: Path) -> None:
    catalogues = open_catalogues(plain, tmp_path)
    north, south = catalogues[1], catalogues[0]
    neighbours = Neighbours([Neighbour(south.base, south.served)])
    south.served.add(read_manifest(two.adapter(SOUTH, tmp_path / "taken", 5), alias="taken", version="v1"))
    for alias in ("taken", "TAKEN", SOUTH):
        with pytest.raises(AdapterRejectedError):
            neighbours.guard(alias)
    neighbours.guard("free")
    north.served.guard = neighbours.guard
    mine = read_manifest(two.adapter(NORTH, tmp_path / "mine", 6), alias="taken", version="v2")
    with pytest.raises(AdapterRejectedError):
        north.served.add(mine)
    assert neighbours.fit(tmp_path / "taken") == [SOUTH]
    assert neighbours.fit(tmp_path / "mine") == []
    assert neighbours.ambiguous(mine) is None
    twins = Neighbours([Neighbour(north.base, north.served)])
    assert NORTH in str(twins.ambiguous(mine))


def test_a_base_that_is_not_there_is_named(plain: Settings, tmp_path: Path) -> None:
    bases = {**plain.bases, "west": BaseOptions(path=tmp_path / "nowhere")}
    with pytest.raises(SettingsError, match="nowhere") as told:
        open_catalogues(replace(plain, bases=bases), tmp_path)
    assert told.value.name == "bases.west.path"
