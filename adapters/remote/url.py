"""The URL of an adapter's folder: read, brought into one form, and compared with prefixes. Opens nothing.

What is compared is what is fetched: there is one way to write each folder. Percent-encoding is decoded once;
what could be read in two ways, such as `..`, `//`, `%2F` or a `%25`, is refused.
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
"""Characters of a URL."""
WEB = ("https", "http")
SCHEMES = ("s3", "gs", "hf", *WEB)
_LISTED = "s3://, gs://, hf:// or https://"
_MEANT = {"gcs": "gs", "s3a": "s3", "s3n": "s3", "huggingface": "hf"}
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
"""What Hugging Face has beside owners; none of them holds adapters."""
_REPOSITORY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AMBIGUOUS = frozenset("\\/%;?#")
_PLAIN = "!$&'()*+,=:@~"
"""Kept as they are in the path of an https URL, beside letters, digits and `_.-`."""


def is_url(text: str) -> bool:
    """Whether `text` is meant as a URL, and not as a path."""
    return _LIKE.match(text) is not None


def describe_source(text: str) -> str:
    """`text`, a path or a URL that somebody gave, as it may stand in a log: without user and query."""
    if not is_url(text):
        return text
    return re.sub(r"(?<=:/)(/?)[^/]*@", r"\1", re.split(r"[?#]", text, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class AdapterURL:
    """A folder with PEFT's two files, or a prefix of such folders. `str(url)` is safe to log and record."""

    scheme: str
    authority: str
    """Host and port, bucket, or owner of the repository."""
    segments: tuple[str, ...]
    """Of the path, decoded; of `hf` the repository's name first."""
    revision: str = ""
    """Branch, tag or commit of a repository."""
    query: str = field(default="", repr=False)
    """What follows the `?`, such as a signature; goes to the host and nowhere else."""

    @classmethod
    def parse(cls, text: str, *, prefix: bool = False) -> Self:
        """The URL that `text` is; with `prefix` one that may be above any folder.

        Raises `URLRefusedError`, whose message repeats no part of `text`.
        """
        if len(text) > MAX_URL or not text.isprintable() or text != text.strip():
            raise URLRefusedError(
                f"is not a URL: write up to {MAX_URL} printable characters, without spaces around them"
            )
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise URLRefusedError(f"is not a URL: write {_LISTED}")
        scheme, query = _scheme(match["scheme"]), (match["query"] or "").removeprefix("?")
        if match["fragment"] is not None:
            raise URLRefusedError("has a part behind '#': leave it out")
        if query and (prefix or scheme not in WEB or not query.isascii() or " " in query):
            raise URLRefusedError("has a part behind '?', which is not used here: leave it out")
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
        """What the folder is called."""
        return self.segments[-1] if self.segments else self.authority

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, so that it is always the same."""
        return _COMMIT.fullmatch(self.revision) is not None

    def file(self, name: str) -> str:
        """The whole address of a file in the folder, with the query. Not for a log."""
        return f"{self}/{name}" + (f"?{self.query}" if self.query else "")

    def is_beneath(self, prefix: Self) -> bool:
        """Whether it is `prefix` or a folder in it; whole parts of the path are compared."""
        return (
            (self.scheme, self.authority) == (prefix.scheme, prefix.authority)
            and self.segments[: len(prefix.segments)] == prefix.segments
            and prefix.revision in ("", self.revision)
        )

    def _encode(self, segment: str) -> str:
        return quote(segment, safe=_PLAIN) if self.scheme in WEB else segment


@dataclass(frozen=True, slots=True)
class URLPrefixes:
    """The prefixes beneath which the operator lets clients name adapters."""

    prefixes: tuple[AdapterURL, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Raises `URLRefusedError`."""
        return cls(tuple(AdapterURL.parse(entry, prefix=True) for entry in entries))

    def open(self, text: str) -> AdapterURL:
        """The URL that a client's `text` is, if it lies beneath a prefix. Raises `URLRefusedError`."""
        if not self.prefixes:
            raise URLRefusedError(
                "is a URL, and nothing is fetched here: name a folder on the server, or have its operator "
                "list a prefix in the setting adapter_urls"
            )
        url = AdapterURL.parse(text)
        if url.query:
            raise URLRefusedError("has a part behind '?': leave it out; the server has its own credentials")
        if not any(url.is_beneath(prefix) for prefix in self.prefixes):
            raise URLRefusedError("lies beneath no prefix that the server's setting adapter_urls names")
        return url


def _scheme(text: str) -> str:
    scheme = text.lower()
    if scheme in SCHEMES:
        return scheme
    meant = f"write {_MEANT[scheme]}://" if scheme in _MEANT else f"write {_LISTED}"
    raise URLRefusedError(f"has a scheme that adapters are not fetched by: {meant}")


def _authority(scheme: str, text: str) -> str:
    if "@" in text:
        raise URLRefusedError(
            "holds a user name or a password: leave them out; credentials come from the environment"
        )
    if scheme not in WEB:
        if not _BUCKETS[scheme].fullmatch(text) or ".." in text or (scheme == "hf" and text in _KINDS):
            what = "an owner and a repository, as hf://OWNER/NAME" if scheme == "hf" else "a bucket"
            raise URLRefusedError(f"does not name {what}, by the rules for its name")
        return text
    host, port = _host_and_port(text)
    if scheme == "http" and not _is_loopback(host):
        raise URLRefusedError("is not encrypted: write https://; http:// is for this machine itself alone")
    return host if port in (None, _PORTS[scheme]) else f"{host}:{port}"


def _host_and_port(text: str) -> tuple[str, int | None]:
    if not text.isascii():
        raise URLRefusedError("has a host with other characters than ASCII: write its xn-- form")
    match = _AUTHORITY.fullmatch(text)
    port = int(match[2]) if match and match[2] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise URLRefusedError("names no host, or no port from 1 to 65535, behind '://'")
    host = match[1].lower()
    if host.startswith("["):
        try:
            address = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise URLRefusedError("has brackets around what is not an IPv6 address") from None
        if address.ipv4_mapped is not None:
            raise URLRefusedError("has an IPv4 address in IPv6 form: write the IPv4 address")
        return f"[{address.compressed}]", port
    host = host.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise URLRefusedError("has a host that is neither a name nor an address")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise URLRefusedError("has a host of numbers that is not an IPv4 address, as 192.0.2.1") from None
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
            raise URLRefusedError("has percent-encoding that is not UTF-8") from None
        if _ESCAPE.search(part):
            raise URLRefusedError("has a '%' that begins no percent-encoding: write %25, if the name allows")
    else:
        text = part
    if not text.strip(" ."):
        raise URLRefusedError("has an empty part, '.' or '..' in its path: name the folder itself")
    if not text.isprintable() or _AMBIGUOUS & set(text):
        raise URLRefusedError(r"has one of \ / % ; ? # or an unprintable character within a name: rename it")
    return text


def _repository(segments: tuple[str, ...], *, prefix: bool) -> tuple[tuple[str, ...], str]:
    """The path of hf://OWNER/NAME@REVISION/FOLDER without the revision, and the revision."""
    if not segments:
        if prefix:
            return (), ""
        raise URLRefusedError("names no repository: write hf://OWNER/NAME")
    name, at, revision = segments[0].partition("@")
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise URLRefusedError("does not name a repository, by the rules for its name: write hf://OWNER/NAME")
    if at and not _REVISION.fullmatch(revision):
        raise URLRefusedError("has a revision that is not a commit, tag or branch of letters, digits, . _ -")
    return (name, *segments[1:]), revision
