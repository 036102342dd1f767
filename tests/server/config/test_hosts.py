"""Which names a server answers to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.hosts import AllowedHosts, is_loopback, split_authority
from server.config.settings import Settings
from server.config.values import SettingsError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost.:8000", ("localhost", 8000)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::FFFF:127.0.0.1]", ("::ffff:127.0.0.1", None)),
        ("api.example.com", ("api.example.com", None)),
        ("", None), (".", None), (":8000", None), ("a b", None), ("a/b", None), ("x/live?", None),
        ("user@localhost", None), ("::1", None), ("[::1", None), ("[evil]", None), ("[1.2.3.4]x", None),
        ("localhost:", None), ("localhost:1:2", None), ("localhost:123456", None), ("localhost, evil", None),
        ("localhost\x00", None), ("löcalhost", None), ("a" * 300, None),
    ],
)  # fmt: skip
def test_a_host_is_a_name_or_an_address(text: str, found: tuple[str, int | None] | None) -> None:
    assert split_authority(text) == found


@given(st.text(max_size=40))
def test_any_text_is_a_host_or_none(text: str) -> None:
    found = split_authority(text)
    if found is not None:
        AllowedHosts.of("127.0.0.1", ()).allows(found[0])


LOOPBACK = ("localhost", "127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1")
FOREIGN = (
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.7", "2130706433",
    "0x7f.1", "127.1", "notlocalhost", "::2", "fe80::1",
)  # fmt: skip


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_only_loopback_is_asked_for(bound: str) -> None:
    hosts = AllowedHosts.of(bound, ())
    assert all(hosts.allows(host) for host in (*LOOPBACK, bound))
    assert not any(hosts.allows(host) for host in FOREIGN)


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "192.168.1.2", "gpu-7.example.org"])
def test_elsewhere_any_name_is_until_some_are_allowed(bound: str) -> None:
    assert all(AllowedHosts.of(bound, ()).allows(host) for host in (*LOOPBACK, *FOREIGN))
    named = AllowedHosts.of(bound, ("api.example.com",))
    assert [named.allows(host) for host in ("api.example.com", "localhost", "evil.example")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("Api.Example.com.", ("api.example.com",), ("x.api.example.com", "example.com")),
        ("*.example.com", ("a.example.com", "a.b.example.com"), ("example.com", "evilexample.com")),
        ("*", FOREIGN, ()),
        ("10.0.0.0/8", ("10.1.2.3",), ("11.0.0.1", "10.evil.example")),
        ("10.0.0.7", ("10.0.0.7",), ("10.0.0.8",)),
        ("[fd00::7]", ("fd00::7",), ("fd00::8",)),
        ("oneseek", ("oneseek",), ("oneseek.evil.example",)),
    ],
)
def test_what_an_entry_allows(entry: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    hosts = AllowedHosts.of("127.0.0.1", (entry,))
    assert all(hosts.allows(host) for host in yes)
    assert not any(hosts.allows(host) for host in no)
    assert hosts.allows("localhost")


@pytest.mark.parametrize(
    "entry", ["http://a.example", "a.example:8000", "a b", "*.", "*a.example", "a/b", "ä"]
)
def test_what_is_not_a_host_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match="allowed_hosts"):
        Settings(allowed_hosts=(entry,))


def test_a_network_or_a_pattern_has_no_page_of_its_own() -> None:
    hosts = AllowedHosts.parse(("*.example.com", "10.0.0.0/8", "own.example.com", "localhost"))
    pages = [hosts.has_page(host) for host in ("own.example.com", "a.example.com", "10.0.0.1", "localhost")]
    assert pages == [True, False, False, False]
    assert is_loopback("localhost.")
