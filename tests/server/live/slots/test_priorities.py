"""Which adapters are loaded first, and which stay."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from adapters.registry.served import ServedAdapters
from adapters.registry.traffic import Shadow, TrafficSplit
from server.config.values import SettingsError
from server.errors import AdaptersBusyError
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.metrics import Metrics
from tests.server.live.slots.slot_engine import BASE, Asking, House, SlotEngine, named, ran, turns

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_looks")]


async def test_pinned_ones_stay_and_preferred_ones_leave_last() -> None:
    house = House(4, "abcdefgh", pinned=("a",), configured=("b",))
    await house.residency.load_first()
    assert house.engine.loads == ["a", "b"]
    for name in "cdefgh" * 2:
        await ran(house, name)
    assert {"a", "b"} < house.here
    asking = [Asking(house, name) for name in "gh"]
    await turns()
    await ran(house, "c")  # two are in use, one is pinned: the preferred one makes way
    assert house.here == {"a", "g", "h", "c"}
    for one in asking:
        one.finish()
    await asyncio.gather(*(one.task for one in asking))


async def test_a_canary_and_a_shadow_stay_and_leave_a_slot_for_others() -> None:
    versions = [replace(named("a"), version=f"v{n}", digest=f"sha256:{n}") for n in (1, 2, 3)]
    served = ServedAdapters([*versions, *map(named, "bcd")], base_digest=BASE)
    served.activate("a", "v1")
    engine = SlotEngine(3)
    residency = Residency(engine, Metrics(), Priorities(served))
    served.divide("a", TrafficSplit("v1", (("v2", 10.0),), "then"), None)
    for adapter in (versions[1], *map(named, "bcd"), versions[0], *map(named, "bcd")):
        await residency.ensure(adapter)
    assert versions[1].digest in engine.residents.open
    residency.check_spare(versions[2])
    served.divide("a", TrafficSplit("v1", (("v2", 10.0),), "then"), Shadow("v3", 50.0, "then"))
    await residency.ensure(versions[2])
    for adapter in map(named, "bcd"):
        await residency.ensure(adapter)
    assert {versions[1].digest, versions[2].digest} < engine.residents.open
    with pytest.raises(AdaptersBusyError):
        residency.check_spare(named("b"))
    served.divide("a", None, None)
    for adapter in map(named, "bcd"):
        await residency.ensure(adapter)
    assert engine.residents.open == {named(name).digest for name in "bcd"}


async def test_everything_that_fits_is_loaded_at_the_start_else_what_goes_first() -> None:
    assert [one.alias for one in House(3, "abc", configured=("c",)).residency.priorities.first(3)] == [
        "c", "a", "b"
    ]  # fmt: skip
    assert [one.alias for one in House(2, "abc", configured=("c",)).residency.priorities.first(2)] == ["c"]


@pytest.mark.parametrize("pinned", [("nobody",), ("a", "b"), ("a", "b", "c")])
def test_pins_that_cannot_be_kept_stop_the_start(pinned: tuple[str, ...]) -> None:
    house = House(2, "abc", pinned=pinned)
    with pytest.raises(SettingsError) as caught:
        house.residency.priorities.check(2)
    assert caught.value.name == "pinned_adapters"


def test_all_adapters_may_be_pinned_if_there_are_slots_for_them() -> None:
    Priorities(House(2, "ab").served, ("a", "b@v1")).check(2)
