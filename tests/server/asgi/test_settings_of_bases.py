"""Settings of a server with two bases: which base each is for, and how errors name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.config.bases import BaseOptions
from server.config.sections import EngineOptions
from server.config.values import SettingsError
from server.errors import EngineError
from tests.server.two_bases import EN, NORTH, SOUTH, SV, TwoBases, two_bases_served


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoBases:
    return TwoBases.make(tmp_path_factory.mktemp("two"))


def test_an_adapter_is_pinned_by_any_of_its_names(two: TwoBases, tmp_path: Path) -> None:
    names = (f"{NORTH}:{SV}@v1", EN.upper())
    with two_bases_served(two.settings(tmp_path / "home", pinned_adapters=names), tmp_path) as server:
        for service, alias in zip(server.services, (EN, SV), strict=True):
            priorities = service.runtime.priorities
            assert priorities is not None
            assert [adapter.alias for adapter in priorities.pinned_adapters()] == [alias]
    settings = two.settings(tmp_path / "home", pinned_adapters=(f"{SOUTH}:{SV}",))
    with (
        pytest.raises(SettingsError, match=rf"^pinned_adapters: adapter '{SOUTH}:{SV}'"),
        two_bases_served(settings, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"gpu_memory_utilization": 0.5, "engine": EngineOptions(kind="embedded")},
            "bases.north.engine.options",
        ),
        ({"max_model_len": 999}, "base north"),
        ({"engine": EngineOptions(kind="vllm")}, r"^threads: 1 applies .*\(base north\)"),
        ({"engine": EngineOptions(kind="vllm"), "threads": 2}, r"^bases\.north\.threads: 2 applies"),
    ],
)
def test_an_error_of_a_base_says_which(
    two: TwoBases, tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    settings = two.settings(tmp_path / "home")
    bases: dict[str, BaseOptions] = dict(settings.bases)
    bases[NORTH] = replace(bases[NORTH], **options)
    with (
        pytest.raises((SettingsError, EngineError), match=problem),
        two_bases_served(replace(settings, bases=bases), tmp_path),
    ):
        pass
