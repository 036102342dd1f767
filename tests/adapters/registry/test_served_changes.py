"""What is served answers as a simple model of it does, whatever was done to it, and never half-way."""

import sys
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adapters.lora.manifest import Adapter
from adapters.names import natural
from adapters.registry.served import AdapterRejectedError, UnknownAdapterError
from tests.adapters.registry.served_adapters import EN, EN2, SV, adapter, served


def test_a_new_version_waits_until_it_is_activated() -> None:
    known = served(EN)
    before = known.snapshot
    known.add(EN2)
    assert known.resolve("zero") is EN
    assert known.activate("zero", "v1.10") is EN
    assert known.resolve("zero") is EN2
    assert known.activate("zero", "v1.9") is EN2
    assert before.versions("zero") == (EN,), "a snapshot changed"


def test_removing() -> None:
    known = served(EN, EN2, SV, sv="zero-sv")
    with pytest.raises(AdapterRejectedError, match=r"^zero@v1\.10 .*\bv1\.9\b"):
        known.remove("zero@v1.10")
    with pytest.raises(AdapterRejectedError, match=r"^zero .*\bzero@v1\.10$"):
        known.remove("zero")
    with pytest.raises(UnknownAdapterError):
        known.remove("zero@v7")
    with pytest.raises(AdapterRejectedError, match=r"Zero-SV@v1\.1-SV.* sv "):
        known.remove("zero-sv@v1.1-SV")
    assert known.remove("ZERO@V1.9") is EN
    assert known.remove("zero@v1.10") is EN2, "the last version goes with its alias"
    assert known.aliases() == ("Zero-SV",)


def test_readers_never_see_half_a_change() -> None:
    """While an alias moves and versions come and go, it resolves, to a version that was active."""
    known = served(EN, EN2)
    stop, seen, failures = threading.Event(), set[str](), list[BaseException]()

    def read() -> None:
        try:
            while not stop.is_set():
                snapshot = known.snapshot
                first = snapshot.resolve("zero")
                assert snapshot.resolve("en") is first
                assert snapshot.by_digest(first.digest) is first
                seen.add(first.version)
        except BaseException as problem:
            failures.append(problem)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 5
    while (len(seen) < 2 and time.monotonic() < deadline) or not seen:
        for version in ("v1.9", "v1.10"):
            known.activate("zero", version)
            known.add(adapter("zero@v2"))
            time.sleep(0.0005)
            known.remove("zero@v2")
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert seen == {"v1.9", "v1.10"}


def test_writers_lose_nothing() -> None:
    known = served()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    start = threading.Barrier(4)

    def write(alias: str) -> None:
        start.wait()
        for number in range(100):
            known.add(adapter(f"{alias}@v{number}"))

    writers = [threading.Thread(target=write, args=(f"a{index}",)) for index in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    sys.setswitchinterval(interval)
    assert len(known.adapters()) == 400


ALIASES = st.sampled_from(["one", "One", "two", "three"])
VERSIONS = st.sampled_from(["v1", "V1", "v1.2", "v1.10"])
LANGUAGES = st.sampled_from([None, "en", "sv"])


class Machine(RuleBasedStateMachine):
    """Against a flat model: {(alias, version): adapter} and {alias: version}, keys in lower case."""

    def __init__(self) -> None:
        super().__init__()
        self.served = served()
        self.held: dict[tuple[str, str], Adapter] = {}
        self.active: dict[str, str] = {}

    @rule(alias=ALIASES, version=VERSIONS, language=LANGUAGES, digest=st.integers(0, 2))
    def add(self, alias: str, version: str, language: str | None, digest: int) -> None:
        new = adapter(f"{alias}@{version}", language, digest=f"sha256:{digest}")
        key = alias.lower(), version.lower()
        present = self.held.get(key)
        if present is not None and present.digest != new.digest:
            with pytest.raises(AdapterRejectedError):
                self.served.add(new)
            return
        self.served.add(new)
        self.held.setdefault(key, new)
        self.active.setdefault(*key)

    @rule(alias=ALIASES, version=VERSIONS, language=LANGUAGES, digest=st.integers(0, 2))
    def replace(self, alias: str, version: str, language: str | None, digest: int) -> None:
        new = adapter(f"{alias}@{version}", language, digest=f"sha256:{digest}")
        key = alias.lower(), version.lower()
        if key not in self.held:
            with pytest.raises(UnknownAdapterError):
                self.served.replace(new)
            return
        assert self.served.replace(new) is self.held[key]
        self.held[key] = new

    @rule(alias=ALIASES, version=VERSIONS)
    def activate(self, alias: str, version: str) -> None:
        if (alias.lower(), version.lower()) in self.held:
            self.served.activate(alias, version)
            self.active[alias.lower()] = version.lower()
        else:
            with pytest.raises(UnknownAdapterError):
                self.served.activate(alias, version)

    @rule(alias=ALIASES, version=VERSIONS)
    def remove(self, alias: str, version: str) -> None:
        key = alias.lower(), version.lower()
        others = [other for other in self.held if other[0] == key[0] and other != key]
        if key not in self.held:
            with pytest.raises(UnknownAdapterError):
                self.served.remove(f"{alias}@{version}")
        elif others and self.active[key[0]] == key[1]:
            with pytest.raises(AdapterRejectedError):
                self.served.remove(f"{alias}@{version}")
        else:
            assert self.served.remove(f"{alias}@{version}") is self.held.pop(key)
            if not others:
                del self.active[key[0]]

    @invariant()
    def answers_as_the_model(self) -> None:
        assert len(self.served.adapters()) == len(self.held)
        for (alias, version), held in self.held.items():
            assert self.served.resolve(f"{alias}@{version}") is held
            assert self.served.resolve(alias) is self.held[alias, self.active[alias]]
        for alias in self.active:
            versions = [held.version for held in self.served.versions(alias)]
            assert versions == sorted(versions, key=natural)
        speakers: dict[str, list[str]] = {}
        for alias, version in sorted(self.active.items()):
            speaks = self.held[alias, version].language
            if speaks is not None:
                speakers.setdefault(speaks, []).append(self.held[alias, version].alias)
        assert self.served.languages() == {c: found[0] for c, found in speakers.items() if len(found) == 1}
        assert self.served.contested_languages() == {
            c: tuple(found) for c, found in speakers.items() if len(found) > 1
        }


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestMachine = Machine.TestCase
