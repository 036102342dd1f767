"""However many trials end while the registry cannot be written, it learns of every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.bases import find_base
from adapters.ledger import Ledger
from adapters.lora.manifest import Adapter
from adapters.registry.registry import Base, Registry
from adapters.registry.served import ServedAdapters
from server.metrics.metrics import Metrics
from server.rollout import ends as ends_module
from server.rollout.ends import REMEMBERED, TrialEnds
from server.rollout.trials import Trial
from tests.server.rolling import scaled

pytestmark = pytest.mark.anyio
ALIASES = [f"zero-{number}" for number in range(REMEMBERED + 3)]


class Rolled:
    """A registry on disk in which every alias has a canary, and what is to be told of their ends."""

    def __init__(self, scratch: Path) -> None:
        self.key = scratch / "home" / "ledger" / "key.pem"
        self.registry = Registry(scratch / "home", Ledger.open(scratch / "home" / "ledger"))
        base = Base.read(find_base(scratch), scratch / "cache")
        folders = {
            version: scaled(scratch / version, factor) for version, factor in (("v1", 1.0), ("v2", 0.5))
        }
        adapters: list[Adapter] = []
        for alias in ALIASES:
            for version, folder in folders.items():
                added = self.registry.add(folder, base=base, alias=alias, version=version)
                adapters.append(added.adapter)
            self.registry.canary(alias, {"v1": 50, "v2": 50})
        self.served = ServedAdapters(adapters, base_digest=adapters[0].base_digest or "")
        self.metrics = Metrics()
        self.ends = TrialEnds(self.served, self.metrics, self.registry)

    def end_all(self) -> None:
        for alias in ALIASES:
            split = self.registry.listing().pointers.state(alias).split
            assert split is not None
            trial, adapter = Trial("canary", alias, split.since), self.served.resolve(f"{alias}@v2")
            self.ends.rolled_back(trial, adapter, "worse", {"errors": 1})

    def divided(self) -> list[str]:
        pointers = self.registry.listing().pointers
        return [alias for alias in ALIASES if pointers.state(alias).split is not None]

    def unwritten(self) -> int:
        return sum(one["written"] is False for one in self.ends.to_json())

    def tried(self) -> float:
        labels = [{"adapter": alias, "version": "v2", "outcome": "unwritten"} for alias in ALIASES]
        found = (self.metrics.registry.get_sample_value("oneseek_rollouts_total", one) for one in labels)
        return sum(value or 0.0 for value in found)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Rolled:
    return Rolled(tmp_path_factory.mktemp("rolled"))


@pytest.fixture
def rolled(made: Rolled, monkeypatch: pytest.MonkeyPatch) -> Rolled:
    """Every canary has ended here, and the ledger has no key to write that with."""
    monkeypatch.setattr(ends_module, "AGAIN_SECONDS", 3600.0)
    for alias in ALIASES:
        made.registry.canary(alias, {"v1": 50, "v2": 50})
    made.metrics = Metrics()
    made.ends = TrialEnds(made.served, made.metrics, made.registry)
    made.end_all()
    return made


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def test_every_end_is_tried_again_until_it_is_written(
    rolled: Rolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends_module, "AGAIN_SECONDS", 0.0)
    away = rolled.key.rename(rolled.key.with_suffix(".away"))
    rolled.ends.write_due()
    await until(lambda: rolled.tried() == len(ALIASES))
    assert rolled.unwritten() == len(ALIASES)
    away.rename(rolled.key)

    def written() -> bool:
        rolled.ends.write_due()
        return rolled.unwritten() == 0

    await until(written)
    assert rolled.divided() == []
    assert rolled.tried() == len(ALIASES), "each is said once"
    assert len(rolled.ends.to_json()) == REMEMBERED
    await rolled.ends.close()


async def test_a_server_that_stops_writes_what_it_knows(rolled: Rolled) -> None:
    away = rolled.key.rename(rolled.key.with_suffix(".away"))
    rolled.ends.write_due()
    await until(lambda: rolled.tried() == len(ALIASES))
    away.rename(rolled.key)
    await rolled.ends.close()
    assert rolled.divided() == []


async def test_a_later_end_of_an_alias_takes_the_place_of_the_earlier(rolled: Rolled) -> None:
    for alias in ALIASES:
        rolled.registry.canary(alias, {"v1": 90, "v2": 10})
    rolled.end_all()
    assert rolled.unwritten() == len(ALIASES)
    rolled.ends.write_due()
    await until(lambda: rolled.unwritten() == 0)
    assert rolled.divided() == []
    await rolled.ends.close()
