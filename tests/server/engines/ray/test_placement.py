"""Where a request goes, without any replica."""

from __future__ import annotations

import pytest

from server.engines.ray.placement import BLOCK, ReplicaLoad, ReplicaPlacement, prefix_keys
from server.request import AdapterMix, GenerationRequest, Sampling

SV, EN = "sha256:sv", "sha256:en"


def keys(prompt: range | list[int], mix: AdapterMix = (), salt: str = "") -> tuple[int, ...]:
    request = GenerationRequest(
        request_id="r",
        prompt=tuple(prompt),
        sampling=Sampling(max_tokens=1),
        adapter_mix=mix,
        cache_salt=salt,
    )
    return prefix_keys(request)


def test_keys_are_equal_as_far_as_everything_before_is() -> None:
    whole = keys(range(4 * BLOCK))
    assert len(whole) == 4
    assert keys(range(3 * BLOCK + 1)) == whole[:3]
    other = keys([*range(2 * BLOCK), 7, *range(2 * BLOCK + 1, 4 * BLOCK)])
    assert other[:2] == whole[:2]
    assert not {*other[2:]} & {*whole}
    assert keys(range(BLOCK - 1)) == ()


def test_another_adapter_or_tenant_has_other_keys() -> None:
    prompt = range(2 * BLOCK)
    found = {keys(prompt), keys(prompt, ((SV, 1.0),)), keys(prompt, ((SV, 0.5),)), keys(prompt, salt="t")}
    assert len(found) == 4


def test_the_least_loaded_gets_what_nobody_knows() -> None:
    choice = ReplicaPlacement(slack=2).choose(
        keys(range(64)), (), {"a": ReplicaLoad(3), "b": ReplicaLoad(1), "c": ReplicaLoad(2)}
    )
    assert (choice.ranked, choice.reason, choice.known) == (("b", "c", "a"), "load", False)


def test_the_longest_prefix_wins_over_load_up_to_the_slack() -> None:
    placement = ReplicaPlacement(slack=2)
    short, long = keys(range(2 * BLOCK)), keys(range(4 * BLOCK))
    for prompt, name in ((short, "a"), (long, "b")):
        placement.record(prompt, name, placement.choose(prompt, (), {name: ReplicaLoad(0)}))
    places = {"a": ReplicaLoad(0), "b": ReplicaLoad(2)}
    assert placement.choose(keys(range(5 * BLOCK)), (), places).ranked[0] == "b"
    assert (
        placement.choose(short, (), {"a": ReplicaLoad(1), "b": ReplicaLoad(0)}).ranked[0] == "b"
    )  # both hold it
    busy = placement.choose(long, (), {"a": ReplicaLoad(0), "b": ReplicaLoad(3)})
    assert (busy.ranked[0], busy.reason, busy.known) == ("a", "load", True)


def test_an_adapter_goes_where_it_is_resident_up_to_the_slack() -> None:
    placement = ReplicaPlacement(slack=2)
    warm, cold = ReplicaLoad(2, frozenset({SV, EN})), ReplicaLoad(0)
    choice = placement.choose((), (SV,), {"warm": warm, "cold": cold})
    assert (choice.ranked[0], choice.reason) == ("warm", "adapter")
    assert (
        placement.choose((), (SV, EN), {"warm": warm, "half": ReplicaLoad(0, frozenset({SV}))}).ranked[0]
        == "warm"
    )
    assert (
        placement.choose((), (SV,), {"warm": ReplicaLoad(3, frozenset({SV})), "cold": cold}).ranked[0]
        == "cold"
    )
    assert placement.choose((), (), {"warm": warm, "cold": cold}).reason == "load"


def test_a_replica_that_is_gone_holds_nothing() -> None:
    placement, prompt = ReplicaPlacement(slack=2), keys(range(64))
    placement.record(prompt, "a", placement.choose(prompt, (), {"a": ReplicaLoad(0)}))
    placement.forget("a")
    assert not placement.choose(prompt, (), {"a": ReplicaLoad(0)}).known


def test_what_is_remembered_is_bounded() -> None:
    placement = ReplicaPlacement(slack=2, most_keys=4)
    for number in range(3):
        prompt = keys(range(number * 1000, number * 1000 + 2 * BLOCK))
        placement.record(prompt, "a", placement.choose(prompt, (), {"a": ReplicaLoad(0)}))
    assert not placement.choose(keys(range(2 * BLOCK)), (), {"a": ReplicaLoad(0)}).known
    assert placement.choose(keys(range(2000, 2000 + 2 * BLOCK)), (), {"a": ReplicaLoad(0)}).known


@pytest.mark.parametrize("went", ["a", "b"])
def test_reasons_are_those_of_where_a_request_went(went: str) -> None:
    placement, prompt = ReplicaPlacement(slack=2), keys(range(64))
    placement.record(prompt, "a", placement.choose(prompt, (), {"a": ReplicaLoad(0)}))
    choice = placement.choose(prompt, (), {"a": ReplicaLoad(0), "b": ReplicaLoad(0)})
    placement.record(prompt, went, choice)
    assert placement.reasons["prefix"] == (went == "a")
    assert placement.known == 1


def test_without_replicas_there_is_no_order() -> None:
    assert ReplicaPlacement(slack=2).choose((), (), {}).ranked == ()
