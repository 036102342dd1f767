"""Whatever is done in whatever order: the command line, a running server and a fresh start agree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from adapters.errors import RegistryError, UnknownAdapterError
from adapters.ledger import Ledger
from adapters.lora.manifest import Adapter
from adapters.registry.recovery import told_pointers
from adapters.registry.registry import AddResult, Registry
from adapters.registry.registry import Base as RegistryBase
from routing.route import Router
from server.config.settings import RolloutOptions, Settings
from server.engines.base import Engine
from server.live.catalogue import open_base, open_catalogue
from server.live.follow_options import FollowOptions
from server.live.follower import RegistryFollower
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.rollout.rollouts import Rollouts
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import EngineLimits, embedded

NUMBERS = st.integers(0, 3)


@dataclass(frozen=True)
class Bench:
    """What every run shares: the engine is started once, and the base is hashed once."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    router: Router
    tokenizer: Tokenizer
    base: Path
    registry_base: RegistryBase
    sources: tuple[Path, ...]


@pytest.fixture(scope="module")
def bench(
    tiny_base: Path, make_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    top = tmp_path_factory.mktemp("agreement")
    settings = Settings(home=top / "home", base_model=tiny_base)
    catalogue = open_catalogue(settings, top)
    engine = embedded(tiny_base, top, (), EngineLimits(max_num_seqs=4, max_adapters=32))
    sources = tuple(make_adapter(f"agree-{number}", 70 + number) for number in range(4))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.start())
    yield Bench(
        engine,
        loop,
        catalogue.router,
        Tokenizer.load(tiny_base),
        tiny_base,
        open_base(settings),
        sources,
    )
    loop.run_until_complete(engine.close())
    loop.close()


class Agreement(RuleBasedStateMachine):
    """One alias, in lora_adapters and in the registry, over one home."""

    bench: Bench

    @initialize(folders=st.integers(0, 2))
    def begin(self, folders: int) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="oneseek-agreement-"))
        self.settings = Settings(home=self.top / "home", base_model=self.bench.base)
        for number in range(folders):
            self.put(number)
        self.moves: list[str] = []
        """What the alias stood for, as far as `rollback` goes back to it."""
        self.restart()

    def put(self, number: int) -> None:
        folder = self.top / "lora_adapters" / f"zero-v0.{number}"
        if not folder.exists():
            shutil.copytree(self.bench.sources[number], folder)

    def listed(self) -> str | None:
        entry = self.registry().listing().active("zero")
        return None if entry is None else entry.full_name

    def registry(self) -> Registry:
        """As a verb opens it here."""
        ledger = Ledger.open(self.settings.home / "ledger")
        return Registry(self.settings.home, ledger, lambda: open_catalogue(self.settings, self.top).outside)

    def teardown(self) -> None:
        if hasattr(self, "top"):
            shutil.rmtree(self.top)

    @rule()
    def restart(self) -> None:
        catalogue = open_catalogue(self.settings, self.top)
        self.runtime = Runtime(
            name="tiny",
            engine=self.bench.engine,
            served=catalogue.served,
            router=self.bench.router,
            tokenizer=self.bench.tokenizer,
            metrics=Metrics(),
        )
        options = FollowOptions(
            home=self.settings.home,
            base=catalogue.base,
            seconds=1.0,
            provenance=None,
            router=catalogue.make_router,
        )
        self.follower = RegistryFollower(
            self.runtime, options, Rollouts(self.runtime, RolloutOptions(), None)
        )

    @rule(number=NUMBERS)
    def drop_a_folder(self, number: int) -> None:
        """A server looks at folders when it starts."""
        self.put(number)
        self.restart()

    @rule(number=NUMBERS, folder=st.booleans(), action=st.sampled_from(["add", "import"]))
    def add(self, number: int, folder: bool, action: str) -> None:
        before = self.listed()
        source = self.bench.sources[number]
        inside = self.top / "lora_adapters" / f"zero-v0.{number}"
        if folder and inside.exists():
            source = inside
        notes = {"origin": {"file": "old.pth"}} if action == "import" else None
        added: AddResult = self.registry().add(
            source, base=self.bench.registry_base, alias="zero", notes=notes, action=action
        )
        assert added.stands == self.listed()
        assert added.active == (added.stands == added.adapter.full_name)
        if before is not None:
            assert added.stands == before, "what is served stays"
            self.moved(before)
        else:
            assert added.active, "the first of an alias is active"
            self.moved(added.stands)

    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        entries = self.registry().listing().versions("zero")
        if not entries:
            return
        entry = data.draw(st.sampled_from(entries))
        before = self.listed()
        self.registry().promote(entry.full_name)
        assert self.listed() == entry.full_name
        if before is not None:
            self.moved(before)
        self.moved(entry.full_name)

    @rule()
    def rollback(self) -> None:
        try:
            moved = self.registry().rollback("zero")
        except (UnknownAdapterError, RegistryError):
            assert len(self.moves) < 2
            return
        assert [self.moves[-1], self.moves[-2]] == [moved.before.full_name, moved.after.full_name]  # pyright: ignore[reportOptionalMemberAccess]
        self.moves.pop()

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        entries = self.registry().listing().versions("zero")
        if not entries:
            return
        entry = data.draw(st.sampled_from(entries))
        active = self.listed()
        try:
            self.registry().retire(entry.full_name)
        except RegistryError:
            assert entry.full_name == active
            return
        kept = [name for name in self.moves if name != entry.full_name]
        self.moves = [name for index, name in enumerate(kept) if kept[index - 1 : index] != [name]]

    def moved(self, name: str) -> None:
        if self.moves[-1:] != [name]:
            self.moves.append(name)

    @invariant()
    def all_agree(self) -> None:
        if not hasattr(self, "runtime"):
            return
        self.bench.loop.run_until_complete(self.follower.sync())
        fresh, running = open_catalogue(self.settings, self.top).served, self.runtime.served
        told, started = active(fresh.adapters(), fresh.active), active(running.adapters(), running.active)
        listing = self.registry().listing()
        standing = listing.active("zero")
        assert told == started == (standing.full_name if standing is not None else None)
        assert names(fresh.adapters()) == names(running.adapters())
        assert names(fresh.adapters()) == {
            (entry.full_name, entry.read().digest) for entry in listing.served_versions("zero")
        }
        assert not any(adapter.problem for adapter in fresh.adapters())
        assert told_pointers(self.settings.home / "ledger").states == listing.pointers.states


def active(adapters: tuple[Adapter, ...], of: Callable[[str], Adapter]) -> str | None:
    return of("zero").full_name if adapters else None


def names(adapters: tuple[Adapter, ...]) -> set[tuple[str, str]]:
    return {(adapter.full_name, adapter.digest) for adapter in adapters}


def test_all_agree_on_what_is_active(bench: Bench) -> None:
    class Machine(Agreement):
        pass

    Machine.bench = bench
    run_state_machine_as_test(
        Machine, settings=hypothesis_settings(max_examples=12, stateful_step_count=8, deadline=None)
    )
