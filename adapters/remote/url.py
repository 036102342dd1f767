"""Parse and normalise the URLs of adapters' folders, and compare them with prefixes. Opens no connection.

Each folder has one normalised URL, so the URL that is checked is the URL that is fetched. Percent-encoding is
decoded once. Anything that could be read in two ways, such as `..`, `//`, `%2F` or a `%25`, is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from adapters.remote.errors import URLRefusedError

MAX_URL = 2048
"""Maximum number of characters of a URL."""
WEB = ("https", "http")
SCHEMES = ("s3", "gs", "hf", *WEB)
_LISTED = "s3://, gs://, hf:// or https://"
_MEANT = {"s3a": "s3", "s3n": "s3", "huggingface": "hf"}
_SAME = {"gcs": "gs"}
"""Maps other names of URL schemes to the usual one. For example, AIBrix's controller writes `gcs` instead of
`gs` for Google's buckets.
"""
_PORTS = {"https": 443, "http": 80}
_LIKE = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/")
_SHAPE = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?"
    r"(?P<query>\?[^#]*)?(?P<fragment>#.*)?"
)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_BUCKETS = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
    "hf": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"),
}
_KINDS = frozenset({"buckets", "datasets", "kernels", "models", "papers", "spaces"})
"""First parts of Hugging Face paths that are not owners, such as `datasets`. No adapters are below them."""
_REPOSITORY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AMBIGUOUS = frozenset("\\/%;?#")
_PLAIN = "!$&'()*+,=:@~"
"""Characters kept as they are in the path of an https URL, beside letters, digits and `_.-`."""


def is_url(text: str) -> bool:
    """True if `text` is written as a URL rather than a path."""
    return _LIKE.match(text) is not None


def describe_source(text: str) -> str:
    """Return a path or URL in a form that is safe to log: without user name, password, query and fragment."""
    if not is_url(text):
        return text
    return re.sub(r"(?<=:/)(/?)[^/]*@", r"\1", re.split(r"[?#]", text, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class AdapterURL:
    """URL of a folder with an adapter's two PEFT files, or a prefix of such URLs. `str(url)` omits the query,
    so it is safe to log and record.
    """

    scheme: str
    authority: str
    """Host and port of a web URL, name of a bucket, or owner of a Hugging Face repository."""
    segments: tuple[str, ...]
    """Parts of the URL's path between slashes, percent-decoded. For `hf`, the repository's name is first."""
    revision: str = ""
    """Branch, tag or commit of a Hugging Face repository; empty if the URL names none."""
    query: str = field(default="", repr=False)
    """The URL's part after `?`, such as a signature. It is sent to the host and nowhere else."""

    @classmethod
    def parse(cls, text: str, *, prefix: bool = False) -> Self:
        """Parse the URL `text`. If `prefix` is True, `text` may be a prefix of adapters' URLs, such as a
        whole bucket.

        Raises `URLRefusedError`, whose message repeats no part of `text`.
        """
        if len(text) > MAX_URL or not text.isprintable() or text != text.strip():
            raise URLRefusedError(
                f"the value is not a URL: write up to {MAX_URL} printable characters, no spaces around them"
            )
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise URLRefusedError(f"the value is not a URL of an adapter: write {_LISTED}")
        scheme, query = _scheme(match["scheme"]), (match["query"] or "").removeprefix("?")
        if match["fragment"] is not None:
            raise URLRefusedError("the URL has a part after '#': remove that part")
        if query and (prefix or scheme not in WEB or not query.isascii() or " " in query):
            raise URLRefusedError(
                "the URL has a part after '?': remove it; only an http or https URL of one adapter may have "
                "one, in ASCII without spaces"
            )
        segments = _segments(match["path"] or "", encoded=scheme in WEB)
        revision = ""
        if scheme == "hf":
            segments, revision = _repository(segments, prefix=prefix)
        return cls(scheme, _authority(scheme, match["authority"]), segments, revision, query)

    def __str__(self) -> str:
        first, *others = self.segments or ("",)
        path = [f"{first}@{self.revision}" if self.revision else first, *others]
        return "/".join([f"{self.scheme}://{self.authority}", *filter(None, map(self._encode, path))])

    @property
    def name(self) -> str:
        """Name of the adapter's folder: the last part of the URL's path."""
        return self.segments[-1] if self.segments else self.authority

    @property
    def pinned(self) -> bool:
        """True if the URL names a commit, so that its contents never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    def file(self, name: str) -> str:
        """Return the whole URL of a file in the folder, with the query. Do not log the result, because the
        query may hold a secret.
        """
        return f"{self}/{name}" + (f"?{self.query}" if self.query else "")

    def is_beneath(self, prefix: Self) -> bool:
        """True if the URL is `prefix` or a folder below it. Whole segments of the path are compared."""
        return (
            (self.scheme, self.authority) == (prefix.scheme, prefix.authority)
            and self.segments[: len(prefix.segments)] == prefix.segments
            and prefix.revision in ("", self.revision)
        )

    def _encode(self, segment: str) -> str:
        return quote(segment, safe=_PLAIN) if self.scheme in WEB else segment


@dataclass(frozen=True, slots=True)
class URLPrefixes:
    """URL prefixes that the operator allows clients to load adapters from."""

    prefixes: tuple[AdapterURL, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Parse the URL prefixes `entries`. Raises `URLRefusedError` for an invalid prefix."""
        return cls(tuple(AdapterURL.parse(entry, prefix=True) for entry in entries))

    def open(self, text: str) -> AdapterURL:
        """Parse the URL that a client sent. Raises `URLRefusedError` if it is invalid or not below an allowed
        prefix.
        """
        if not self.prefixes:
            raise URLRefusedError(
                "the adapter was named by URL, but this server downloads no adapters: name a folder on the "
                "server, or have its operator list a prefix of the URL in the setting adapter_urls"
            )
        url = AdapterURL.parse(text)
        if url.query:
            raise URLRefusedError(
                "the URL has a part after '?', such as a signature: remove that part, because the server "
                "uses its own credentials"
            )
        if not any(url.is_beneath(prefix) for prefix in self.prefixes):
            raise URLRefusedError(
                "the URL is not below any prefix in the server's setting adapter_urls: use a URL below "
                "one of these prefixes"
            )
        return url


def _scheme(text: str) -> str:
    scheme = _SAME.get(text.lower(), text.lower())
    if scheme in SCHEMES:
        return scheme
    meant = f"write {_MEANT[scheme]}://" if scheme in _MEANT else f"write {_LISTED}"
    raise URLRefusedError(f"adapters cannot be fetched from a URL of this scheme: {meant}")


def _authority(scheme: str, text: str) -> str:
    if "@" in text:
        raise URLRefusedError(
            "the URL holds a user name or a password: remove them, and set the host's credentials in the "
            "environment"
        )
    if scheme not in WEB:
        if not _BUCKETS[scheme].fullmatch(text) or ".." in text or (scheme == "hf" and text in _KINDS):
            what = "an owner and a repository, hf://OWNER/NAME" if scheme == "hf" else "the name of a bucket"
            raise URLRefusedError(f"the URL has an invalid name after '://': write {what}")
        return text
    host, port = _host_and_port(text)
    if scheme == "http" and not _is_loopback(host):
        raise URLRefusedError(
            "the URL is not encrypted: begin it with https://; http:// is allowed for localhost only"
        )
    return host if port in (None, _PORTS[scheme]) else f"{host}:{port}"


def _host_and_port(text: str) -> tuple[str, int | None]:
    if not text.isascii():
        raise URLRefusedError(
            "the URL has a host with characters that are not ASCII: write the host in its xn-- form"
        )
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2]) if match and match[2] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise URLRefusedError(
            "the URL lacks a valid HOST or HOST:PORT after '://'; a port is from 1 to 65535"
        )
    host = match[1].lower()
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise URLRefusedError(
                "the URL has a host in brackets that is not an IPv6 address: correct the URL"
            ) from None
        if address.ipv4_mapped is not None:
            raise URLRefusedError(
                "the URL has an IPv4 address written as IPv6: write the host as IPv4, such as 192.0.2.1"
            )
        return f"[{address.compressed}]", port
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise URLRefusedError("the URL's host is neither a host name nor an IP address: correct the URL")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise URLRefusedError(
                "the URL's host ends in a number, but is not an IPv4 address such as 192.0.2.1: correct it"
            ) from None
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _segments(path: str, *, encoded: bool) -> tuple[str, ...]:
    path = path.removeprefix("/").removesuffix("/")
    return tuple(_segment(part, encoded=encoded) for part in path.split("/")) if path else ()


def _segment(part: str, *, encoded: bool) -> str:
    if encoded:
        try:
            text = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            raise URLRefusedError(
                "the URL has percent-encoding that is not UTF-8: encode its path as UTF-8"
            ) from None
        if _ESCAPE.search(part):
            raise URLRefusedError(
                "the URL has a '%' without two hex digits after it: write %25 for a percent sign"
            )
    else:
        text = part
    if not text.strip(" ."):
        raise URLRefusedError(
            "the URL's path has an empty part, '.' or '..': write the direct URL of the folder"
        )
    if not text.isprintable() or _AMBIGUOUS & set(text):
        raise URLRefusedError(
            r"a folder in the URL's path has \ / % ; ? # or an unprintable character: rename that folder"
        )
    return text


def _repository(segments: tuple[str, ...], *, prefix: bool) -> tuple[tuple[str, ...], str]:
    """Split the path of hf://OWNER/NAME@REVISION/FOLDER. Returns (path without the revision, revision)."""
    if not segments:
        if prefix:
            return (), ""
        raise URLRefusedError("the URL does not name a repository of Hugging Face: write hf://OWNER/NAME")
    name, at, revision = segments[0].partition("@")
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise URLRefusedError("the URL has an invalid repository of Hugging Face: write hf://OWNER/NAME")
    if at and not _REVISION.fullmatch(revision):
        raise URLRefusedError(
            "the URL has an invalid revision after '@': write a commit, tag or branch of A-Z a-z 0-9 . _ -"
        )
    return (name, *segments[1:]), revision
