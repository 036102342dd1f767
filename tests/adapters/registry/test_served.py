"""Names of what is served: which version each finds, and what is rejected."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import AdapterRejectedError, ServedAdapters, UnknownAdapterError
from tests.adapters.registry.served_adapters import BASE, EN, EN2, SV, adapter, served


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


def test_the_active_version_can_be_said() -> None:
    known = served(EN, EN2, active=[("ZERO", "V1.9")])
    assert known.resolve("zero") is EN


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
