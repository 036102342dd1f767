"""One way to write each folder, whatever is sent: hostile URLs, prefixes, and what a message may repeat."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.remote.errors import URLRefusedError
from adapters.remote.url import MAX_URL, AdapterURL, URLPrefixes, describe_source, is_url

SAME = {
    "s3://bucket/adapters/sv-v1.1": ["s3://bucket/adapters/sv-v1.1/", "S3://bucket/adapters/sv-v1.1"],
    "https://example.com/a/b": [
        "HTTPS://EXAMPLE.com/a/b",
        "https://example.com:443/a/b",
        "https://example.com./a/b/",
        "https://example.com/%61/b",
    ],
    "https://example.com:8443/a": ["https://example.com:08443/a"],
    "https://[2001:db8::1]/a": ["https://[2001:0DB8:0:0::1]/a"],
    "https://example.com/spr%C3%A5k/sv": [
        "https://example.com/språk/sv",
        "https://example.com/spr%c3%a5k/sv",
    ],
    "http://127.0.0.1:9000/a": ["http://127.0.0.1:9000/a/"],
    "http://localhost/a": ["http://LOCALHOST.:80/a"],
    "gs://my_bucket/a": ["gs://my_bucket/a/", "gcs://my_bucket/a", "GCS://my_bucket/a/"],
    "hf://org/name@main/sub": ["HF://org/name@main/sub/"],
}


@pytest.mark.parametrize(("wanted", "text"), [(one, text) for one, every in SAME.items() for text in every])
def test_one_folder_has_one_form(wanted: str, text: str) -> None:
    assert str(AdapterURL.parse(text)) == wanted
    assert AdapterURL.parse(text) == AdapterURL.parse(wanted)


REFUSED = [
    "",
    "s3:/bucket/a",
    "s3://",
    "s3:///a",
    "file:///etc/passwd",
    "ftp://example.com/a",
    "memory://a/b",
    "s3://Bucket/a",
    "s3://key:secret@bucket/a",
    "s3://bucket/a/../b",
    "s3://bucket//a",
    "s3://bucket/a/./b",
    "s3://bucket/a/.../b",
    "s3://bucket/.. /b",
    "s3://bucket/a?versionId=1",
    "s3://bucket/a#part",
    "s3://bucket/a%2fb",
    "s3://bucket/a\\..\\b",
    "s3://bucket:9000/a",
    "https://user:password@example.com/a",
    "https://user@example.com/a",
    "https://example.com@evil.example/a",
    "https://example.com\\@evil.example/a",
    "https://exämple.com/a",
    "https://ｅxample.com/a",
    "https://example。com/a",
    "https://example.com:/a",
    "https://example.com:0/a",
    "https://example.com:65536/a",
    "https://example.com:44３/a",
    "https://-example.com/a",
    "https://exa mple.com/a",
    "https://example..com/a",
    "https://.example.com/a",
    "https://127.1/a",
    "https://0x7f.0.0.1/a",
    "https://2130706433/a",
    "https://0177.0.0.1/a",
    "https://[::1/a",
    "https://[::1%25eth0]/a",
    "https://[::ffff:127.0.0.1]/a",
    "https://[example.com]/a",
    "https://example.com/a/%2e%2e/b",
    "https://example.com/a/%2E./b",
    "https://example.com/a/..%2fb",
    "https://example.com/a/%252e%252e/b",
    "https://example.com/a/..;/b",
    "https://example.com/a/%5c..%5cb",
    "https://example.com/a%00b",
    "https://example.com/a%0d%0ab",
    "https://example.com/%ff",
    "https://example.com/%zz",
    "https://example.com/a//b",
    "https://example.com//a",
    "https://example.com/a\tb",
    "https://example.com/a\u202eb",
    " https://example.com/a",
    "http://example.com/a",
    "http://10.0.0.1/a",
    "http://localhost.example.com/a",
    "hf://org",
    "hf://org/",
    "hf://org/..",
    "hf://org/name@",
    "hf://org/name@a/../b",
    "hf://org/name@..",
    "hf://org/name@refs%2Fpr%2F1",
    "hf://datasets@x/name",
    "hf://datasets/org/name",
    f"https://example.com/{'a' * MAX_URL}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(URLRefusedError):
        AdapterURL.parse(text)


def test_a_message_and_a_log_repeat_no_secret() -> None:
    for text in ("https://user:hunter2@example.com/a", "s3://key:hunter2@bucket/a", "ftp://x/a?hunter2"):
        with pytest.raises(URLRefusedError) as refused:
            AdapterURL.parse(text)
        assert "hunter2" not in str(refused.value)
        assert "hunter2" not in describe_source(text)
    url = AdapterURL.parse("https://example.com/a?X-Signature=hunter2")
    assert "hunter2" not in str(url)
    assert "hunter2" not in repr(url)
    assert url.file("x.json") == "https://example.com/a/x.json?X-Signature=hunter2"


def test_a_commit_pins_and_a_branch_does_not() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert AdapterURL.parse(f"hf://org/name@{commit}/sub").pinned
    for text in ("hf://org/name", "hf://org/name@main", f"s3://bucket/{commit}"):
        assert not AdapterURL.parse(text).pinned


def test_paths_of_windows_and_of_posix_are_no_urls() -> None:
    assert is_url("s3://bucket/a")
    assert is_url("file:/etc")
    for path in ("C:/adapters", "C:\\adapters", "adapters/a:b", "/srv/a", "sv@v1.1"):
        assert not is_url(path)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        (
            "s3://bucket/a",
            ["s3://bucket/a", "s3://bucket/a/b"],
            ["s3://bucket/ab", "s3://bucket", "gs://bucket/a"],
        ),
        ("s3://bucket", ["s3://bucket/a"], ["s3://bucket2/a", "s3://other/bucket"]),
        (
            "https://example.com/a",
            ["https://EXAMPLE.com:443/a/b"],
            [
                "https://example.com.evil.example/a",
                "https://example.com:8443/a",
                "https://example.com/a%2fb",
                "https://example.com/A/b",
                "http://127.0.0.1/a",
            ],
        ),
        ("hf://org", ["hf://org/name@main"], ["hf://org2/name", "hf://other/org"]),
        ("hf://org/name", ["hf://org/name@main/sub"], ["hf://org/name2", "hf://org/name-2@main"]),
        ("hf://org/name@main", ["hf://org/name@main/sub"], ["hf://org/name", "hf://org/name@dev"]),
    ],
)
def test_a_prefix_holds_whole_parts(prefix: str, inside: list[str], outside: list[str]) -> None:
    prefixes = URLPrefixes.parse([prefix])
    for text in inside:
        assert prefixes.open(text)
    for text in outside:
        with pytest.raises(URLRefusedError):
            prefixes.open(text)


def test_without_prefixes_nothing_is_opened() -> None:
    with pytest.raises(URLRefusedError, match="adapter_urls"):
        URLPrefixes().open("s3://bucket/a")


def test_a_client_brings_no_query() -> None:
    with pytest.raises(URLRefusedError):
        URLPrefixes.parse(["https://example.com/a"]).open("https://example.com/a?file=../b")


@pytest.mark.parametrize("entry", ["*", "s3://", "https://example.com/a?b", "https://*.example.com", "hf://"])
def test_a_prefix_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(URLRefusedError):
        URLPrefixes.parse([entry])


PIECES = (
    *(
        "a",
        "b",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E",
        "..;",
        "%2f",
        "%5c",
        "\\",
        "%25",
        "a%00",
        "å",
        "%c3%a5",
        "@evil",
    ),
    *("a?b", "a#b", " ", "a b", "...", "~", "a:b", "secret"),
)
HOSTS = (
    *("example.com", "EXAMPLE.COM", "example.com.", "example.com:443", "example.com:444", "example.com@evil"),
    *(
        "evil.example",
        "example.com.evil",
        "ｅxample.com",
        "[::1]",
        "127.0.0.1",
        "127.1",
        "user:pw@example.com",
    ),
)


@given(
    scheme=st.sampled_from(["https://", "HTTPS://", "http://", "https:/", "https:\\\\"]),
    host=st.sampled_from(HOSTS),
    pieces=st.lists(st.sampled_from(PIECES), max_size=6),
    joins=st.lists(st.sampled_from(["/", "//", "\\", "/./", "/../", "/%2e%2e/"]), min_size=6, max_size=6),
)
def test_whatever_is_opened_lies_beneath_the_prefix(
    scheme: str, host: str, pieces: list[str], joins: list[str]
) -> None:
    text = f"{scheme}{host}/a" + "".join(join + piece for join, piece in zip(joins, pieces, strict=False))
    try:
        url = URLPrefixes.parse(["https://example.com/a"]).open(text)
    except URLRefusedError:
        return
    parts = urlsplit(str(url))
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "example.com", "", "")
    assert re.fullmatch(r"/a(?:/[^/]+)*", parts.path)
    # Clients and servers that normalise once more come to the same.
    assert yarl.URL(str(url)).path == unquote(parts.path)
    assert not {"", ".", ".."} & set(unquote(parts.path).split("/")[1:])
    assert AdapterURL.parse(str(url)) == url


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for one in (text, f"https://{text}", f"s3://bucket/{text}", f"hf://{text}"):
        try:
            url = AdapterURL.parse(one)
        except URLRefusedError:
            continue
        assert str(url).isprintable()
        again = AdapterURL.parse(str(url))
        assert (again.segments, again.authority, again.revision) == (
            url.segments,
            url.authority,
            url.revision,
        )
