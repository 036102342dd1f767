"""The registry answers as a simple model of it does, whatever was done to it, and never half-way."""

import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adapters.lora.manifest import Adapter
from adapters.names import natural
from adapters.registry.served import AdapterRejectedError, ServedAdapters, UnknownAdapterError

BASE = "sha256:" + "b" * 64


def adapter(
    full_name: str, language: str | None = None, digest: str = "", base: str | None = BASE
) -> Adapter:
    alias, _, version = full_name.partition("@")
    return Adapter(
        alias=alias,
        version=version or "v1",
        digest=digest or f"sha256:{full_name.lower()}",
        path=Path("adapters") / alias / version,
        rank=8,
        alpha=32,
        targets=("q_proj", "v_proj"),
        language=language,
        base_digest=base,
    )


def served(*adapters: Adapter, active: Iterable[tuple[str, str]] = (), **languages: str) -> ServedAdapters:
    return ServedAdapters(
        adapters, base_digest=BASE, base_name="oneseek-mini", active=dict(active), languages=languages
    )


EN, EN2 = adapter("zero@v1.9", "en"), adapter("zero@v1.10", "en")
SV = adapter("Zero-SV@v1.1-SV", "sv")


def test_names_in_any_case() -> None:
    known = served(EN, EN2, SV)
    assert known.resolve("zero") is EN2
    assert known.resolve("ZERO@V1.9") is EN
    assert known.resolve("zero-sv@v1.1-sv") is SV
    assert known.resolve(" sv ") is SV
    assert known.resolve("SV@v1.1-SV") is SV
    assert known.aliases() == ("zero", "Zero-SV")
    assert known.versions("en") == (EN, EN2)
    assert known.active("zero") is EN2
    assert known.languages() == {"en": "zero", "sv": "Zero-SV"}
    assert known.adapters() == (EN, EN2, SV)


@pytest.mark.parametrize(
    "name",
    ["", "@", "zero@", "@v1", "zero@v1", "zero@v1.9@v1.9", "zer", "base", "auto", "de", "zero/../x", "\0"],
)
def test_what_is_no_adapter_is_said_to_be_none(name: str) -> None:
    known = served(EN, EN2, SV)
    assert not known.is_adapter(name)
    with pytest.raises(UnknownAdapterError):
        known.resolve(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("zerro", "zero"), ("zero-se", "Zero-SV"), ("zero@v1.8", "zero@v1.9"), ("zero@latest", "zero@v1.10")],
)
def test_close_names_are_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UnknownAdapterError) as caught:
        served(EN, EN2, SV).resolve(name)
    assert hint in caught.value.hints
    assert caught.value.name == name
    assert all(one in str(caught.value) for one in (repr(name), *caught.value.hints))


@pytest.mark.parametrize(
    "name", ["x" * 1_000_000, "\x1b[31m" * 1000, "å\n" * 1000, "zero@" + "v" * 1_000_000]
)
def test_a_hostile_name_is_answered_shortly_and_soon(name: str) -> None:
    known = served(*(adapter(f"adapter-number-{i}") for i in range(1000)), EN)
    started = time.thread_time()
    with pytest.raises(UnknownAdapterError) as caught:
        known.resolve(name)
    assert time.thread_time() - started < 1
    assert len(str(caught.value)) < 250
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_the_base_is_the_base() -> None:
    known = served(EN)
    assert known.is_base("base")
    assert known.is_base("OneSeek-Mini")
    assert not known.is_base("zero")
    assert not known.is_base("")
    assert known.base_digest == BASE
    assert known.base_name == "oneseek-mini"
    assert not served(adapter("oneseek-mini")).is_base("oneseek-mini"), "the adapter was asked for"


def test_a_language_that_two_speak_names_neither() -> None:
    other = adapter("other-sv", "sv")
    known = served(SV, other)
    assert not known.is_adapter("sv")
    assert known.languages() == {}
    assert known.contested_languages() == {"sv": ("other-sv", "Zero-SV")}
    settled = served(SV, other, sv="OTHER-SV")
    assert settled.resolve("sv") is other
    assert settled.languages() == {"sv": "other-sv"}
    assert settled.contested_languages() == {}


def test_a_configured_language_needs_no_adapter_that_says_so() -> None:
    known = served(EN, SV, no="zero-sv")
    assert known.languages() == {"en": "zero", "no": "Zero-SV", "sv": "Zero-SV"}
    assert known.resolve("no") is SV


def test_a_configured_language_goes_before_what_adapters_say() -> None:
    known = served(EN, SV, sv="zero")
    assert known.resolve("sv") is EN
    assert known.languages()["sv"] == "zero"


def test_short_names() -> None:
    known = ServedAdapters([EN, SV], base_digest=BASE, short_names={"Swede": "zero-sv"})
    assert known.resolve("swede@v1.1-SV") is SV
    assert known.languages() == {"en": "zero", "sv": "Zero-SV"}


@pytest.mark.parametrize("name", ["base", "auto", "a@b", "a/b"])
def test_a_short_name_is_a_name(name: str) -> None:
    with pytest.raises(ValueError, match=repr(name)):
        ServedAdapters([EN], base_digest=BASE, short_names={name: "zero"})


def test_what_is_configured_must_exist() -> None:
    with pytest.raises(UnknownAdapterError, match="'gone'"):
        served(EN, sv="gone")
    with pytest.raises(UnknownAdapterError, match="'gone'"):
        ServedAdapters([EN], base_digest=BASE, short_names={"x": "gone"})
    with pytest.raises(UnknownAdapterError, match="zero@v3"):
        served(EN, active=[("zero", "v3")])


def test_an_alias_goes_before_a_language() -> None:
    named = adapter("sv", "en")
    assert served(named, SV).resolve("sv") is named


def test_the_active_version_can_be_said() -> None:
    known = served(EN, EN2, active=[("ZERO", "V1.9")])
    assert known.resolve("zero") is EN


def test_a_new_version_waits_until_it_is_activated() -> None:
    known = served(EN)
    before = known.snapshot
    known.add(EN2)
    assert known.resolve("zero") is EN
    assert known.activate("zero", "v1.10") is EN
    assert known.resolve("zero") is EN2
    assert known.activate("zero", "v1.9") is EN2
    assert before.versions("zero") == (EN,), "a snapshot changed"


def test_another_base_is_rejected() -> None:
    other = adapter("zero", base="sha256:" + "c" * 64)
    with pytest.raises(AdapterRejectedError, match=r"zero@v1 .* sha256:c+, .*oneseek-mini"):
        served(other)
    served(replace(other, base_digest=None))


def test_two_digests_under_one_name_are_rejected() -> None:
    one, other = adapter("zero@v1", digest="sha256:1"), adapter("ZERO@V1", digest="sha256:2")
    with pytest.raises(AdapterRejectedError, match=r"\bsha256:1\b.*\bsha256:2\b"):
        served(one, other)
    assert served(one, replace(one, path=Path("copy"))).adapters() == (one,)


@pytest.mark.parametrize("name", ["base", "a b", "a@b"])
def test_a_name_that_is_none_is_rejected(name: str) -> None:
    with pytest.raises(AdapterRejectedError):
        served(replace(EN, alias=name))
    with pytest.raises(AdapterRejectedError, match="version"):
        served(replace(EN, version=name))


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


def test_by_digest_prefers_what_is_active() -> None:
    old, new = adapter("a@v1", digest="sha256:1"), adapter("a@v2", digest="sha256:2")
    same = adapter("b@v1", digest="sha256:1")
    known = served(old, new, same)
    assert known.by_digest("sha256:1") is same
    assert known.by_digest("sha256:2") is new
    with pytest.raises(UnknownAdapterError):
        known.by_digest("sha256:3")


def test_an_empty_registry() -> None:
    known = served()
    assert known.aliases() == ()
    assert known.languages() == {}
    with pytest.raises(UnknownAdapterError, match="'zero'") as caught:
        known.resolve("zero")
    assert (caught.value.name, caught.value.hints) == ("zero", ())


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


def test_the_imported_alias_is_the_one_that_no_language_finds() -> None:
    def imported(full_name: str, language: str | None) -> Adapter:
        return replace(adapter(full_name, language), imported=True)

    plain, swedish = imported("zero@v1", None), imported("another@v1", "sv")
    english = adapter("english@v1", "en")
    cases = [([english], None), ([english, swedish], "another"), ([english, swedish, plain], "zero")]
    for held, expected in cases:
        assert ServedAdapters(held, base_digest=BASE).snapshot.imported == expected
    trained = ServedAdapters([plain, adapter("zero@v2")], base_digest=BASE)
    assert (trained.active("zero").version, trained.snapshot.imported) == ("v2", "zero")


LIKE_A_CODE = [adapter("sv@v1"), adapter("it@v1"), adapter("mine-sv@v1", "sv"), adapter("roma@v1", "it")]


@pytest.mark.parametrize("configured", [{}, {"sv": "mine-sv"}])
def test_an_alias_that_is_a_language_code_is_a_name_alone(configured: dict[str, str]) -> None:
    served = ServedAdapters(LIKE_A_CODE, base_digest=BASE, languages=configured)
    assert served.languages() == {"it": "roma", "sv": "mine-sv"}
    assert (served.resolve("sv").alias, served.resolve("IT").alias) == ("sv", "it")
    assert served.contested_languages() == {}


def test_such_an_alias_answers_its_language_if_it_speaks_it_or_is_configured() -> None:
    assert ServedAdapters([adapter("sv@v1", "sv")], base_digest=BASE).languages() == {"sv": "sv"}
    served = ServedAdapters(LIKE_A_CODE, base_digest=BASE, languages={"sv": "sv"})
    assert served.languages() == {"it": "roma", "sv": "sv"}
    both = ServedAdapters([adapter("sv@v1", "sv"), adapter("mine@v1", "sv")], base_digest=BASE)
    assert (both.languages(), both.contested_languages()) == ({}, {"sv": ("mine", "sv")})


def test_a_short_name_that_is_a_language_code_takes_no_language() -> None:
    held = [adapter("mine-sv@v1", "sv"), adapter("other@v1")]
    served = ServedAdapters(held, base_digest=BASE, short_names={"sv": "other"})
    assert (served.languages(), served.resolve("sv").alias) == ({"sv": "mine-sv"}, "other")
