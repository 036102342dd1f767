"""Open folders at URLs through fsspec. Only this module uses fsspec and the libraries that fsspec uses.

Credentials come from each library's own environment variables and files (`AWS_*`,
`GOOGLE_APPLICATION_CREDENTIALS`, `HF_TOKEN`, `~/.netrc`), and proxies from `HTTPS_PROXY`.
"""

from __future__ import annotations

import importlib.util
import logging
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from adapters.remote.errors import FetchError, URLRefusedError
from adapters.remote.url import WEB, AdapterURL

CHUNK = 4 << 20
"""Number of bytes to read at a time."""
CONNECT_SECONDS = 10
READ_SECONDS = 20
"""Seconds without a byte after which a host counts as unreachable."""
MAX_REDIRECTS = 5
_BLOCK = 8 << 20
"""Number of bytes to request from a bucket at a time."""
_MOST_LISTED = 16
"""Number of listed paths after which no more subfolders are searched for an adapter."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "s3": ("fsspec", "s3fs"),
    "gs": ("fsspec", "gcsfs"),
    "hf": ("fsspec", "huggingface_hub"),
    "https": ("fsspec", "aiohttp"),
}
_TALKATIVE = (
    *("fsspec", "s3fs", "gcsfs", "huggingface_hub", "aiohttp", "aiobotocore", "botocore", "boto3", "google"),
    *("urllib3", "httpx", "httpx2", "httpcore", "httpcore2"),
)
"""Loggers whose level is raised to ERROR, because their other lines hold signed URLs and headers. Errors
reach the caller as exceptions anyway.
"""


class OpenedFile(Protocol):
    """An open file at a URL, read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes. Returns no bytes at the end of the file."""
        ...

    def close(self) -> None:
        """Close the remote file."""
        ...


class RemoteFolder(Protocol):
    """A folder at a URL. Its methods raise the errors of the library that reads the URL."""

    revision: str
    """Commit of the Hugging Face repository that is read; empty for other hosts."""

    def open(self, name: str) -> tuple[OpenedFile, int | None]:
        """Open the file `name`. Returns the open file, and its size in bytes if the host states it."""
        ...

    def names(self) -> list[str]:
        """List the paths in the folder and one level below. Returns an empty list if the host cannot list
        them.
        """
        ...


@contextmanager
def open_folder_at(url: AdapterURL, *, follow_redirects: bool) -> Generator[RemoteFolder]:
    """Open the folder at `url`. If `follow_redirects` is True, an https host may redirect to another host.

    Raises `FetchError` if a Python package is missing, and otherwise the errors of the library that reads the
    URL.
    """
    scheme = "https" if url.scheme in WEB else url.scheme
    absent = [name for name in _NEEDED[scheme] if importlib.util.find_spec(name) is None]
    if absent:
        raise FetchError(
            url,
            "extra",
            f"a {scheme} URL needs {', '.join(absent)}, which is not installed",
            f"To install the missing package: pip install 'oneseek[{scheme}]'",
        )
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.ERROR))
    if url.scheme in WEB:
        with _web(url, follow_redirects=follow_redirects) as folder:
            yield folder
    else:
        yield _OPENERS[url.scheme](url)


@dataclass
class _Bucket:
    fs: Any
    """The file system through which fsspec reads the bucket, an `fsspec.AbstractFileSystem`. It is typed as
    `Any`, because fsspec has no type stubs.
    """
    root: str
    options: Mapping[str, Any]
    revision: str = ""

    def open(self, name: str) -> tuple[OpenedFile, int | None]:
        file = self.fs.open(f"{self.root}/{name}", "rb", **self.options)
        return file, getattr(file, "size", None)

    def names(self) -> list[str]:
        found: list[str] = []
        for entry in self._list(self.root):
            if entry["type"] == "directory" and len(found) < _MOST_LISTED:
                found += [self._relative(inner) for inner in self._list(entry["name"])]
            else:
                found.append(self._relative(entry))
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        return [
            entry for entry in self.fs.ls(path, detail=True) if entry["name"].strip("/") != path.strip("/")
        ]

    def _relative(self, entry: Mapping[str, Any]) -> str:
        return str(entry["name"]).lstrip("/").removeprefix(f"{self.root}/")


def _s3(url: AdapterURL) -> RemoteFolder:
    import fsspec

    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"max_attempts": 2},
    }
    fs: Any = fsspec.filesystem("s3", config_kwargs=config, **_FRESH)
    fs.retries = 2
    return _Bucket(fs, "/".join((url.authority, *url.segments)), _BLOCKS)


def _gs(url: AdapterURL) -> RemoteFolder:
    import fsspec

    return _Bucket(fsspec.filesystem("gs", **_FRESH), "/".join((url.authority, *url.segments)), _BLOCKS)


def _hf(url: AdapterURL) -> RemoteFolder:
    from huggingface_hub import HfApi, HfFileSystem, constants

    constants.HF_HUB_DISABLE_TELEMETRY = True
    repository, *path = url.segments
    found = HfApi().repo_info(f"{url.authority}/{repository}", revision=url.revision or None, timeout=10)
    commit = found.sha or url.revision
    root = "/".join((url.authority, f"{repository}@{commit}", *path))
    return _Bucket(HfFileSystem(skip_instance_cache=True), root, {"block_size": 0}, commit)


_FRESH: Mapping[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
_BLOCKS: Mapping[str, Any] = {"block_size": _BLOCK, "cache_type": "none"}
_OPENERS: Mapping[str, Callable[[AdapterURL], RemoteFolder]] = {"s3": _s3, "gs": _gs, "hf": _hf}


@contextmanager
def _web(url: AdapterURL, *, follow_redirects: bool) -> Generator[RemoteFolder]:
    import aiohttp
    import fsspec
    from fsspec.asyn import sync

    client = {
        "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
        "auto_decompress": False,
        "trust_env": True,
    }
    asked: dict[str, Any] = {"headers": {"Accept-Encoding": "identity"}}
    if url.scheme == "https":
        asked["ssl"] = ssl.create_default_context()  # aiohttp's own is from when it was imported
    fs: Any = fsspec.filesystem("https", encoded=True, client_kwargs=client, **asked, **_FRESH)
    try:
        yield _Web(fs, url, follow_redirects)
    finally:
        session: Any = sync(fs.loop, fs.set_session)
        with suppress(Exception):
            sync(fs.loop, session.close, timeout=CONNECT_SECONDS)


@dataclass
class _Web:
    fs: Any
    url: AdapterURL
    follow_redirects: bool
    revision: str = field(default="", init=False)

    def open(self, name: str) -> tuple[OpenedFile, int | None]:
        address = self.url.file(name)
        for _ in range(MAX_REDIRECTS + 1 if self.follow_redirects else 1):
            # Without a size fsspec would ask for it first; without a block size it streams.
            file: Any = self.fs.open(address, "rb", block_size=0, size=1, allow_redirects=False)
            response = file.r
            if response.status == 200:
                return self._plain(file), response.content_length
            file.close()
            if response.status not in _REDIRECTS:
                raise FetchError(
                    self.url,
                    "unreachable",
                    f"the host answers with HTTP status {response.status}",
                    "Correct the adapter's URL, or fetch the adapter again later.",
                )
            address = self._next(address, response.headers.get("Location", ""))
        if self.follow_redirects:
            raise FetchError(
                self.url,
                "unreachable",
                "the host redirects too often",
                "Use the URL to which the last redirect leads.",
            )
        raise FetchError(
            self.url,
            "unreachable",
            "the host redirects to another URL, which OneSeek does not follow",
            "Use the URL to which the redirect leads, "
            "and add its prefix to the server's setting adapter_urls.",
        )

    def names(self) -> list[str]:
        return []

    def _plain(self, file: Any) -> OpenedFile:
        if file.r.headers.get("Content-Encoding", "identity").lower() != "identity":
            file.close()
            raise FetchError(
                self.url,
                "unreachable",
                "the host sends the file compressed, although the request forbids compression",
                "Configure the host to send the files uncompressed.",
            )
        return file

    def _next(self, address: str, location: str) -> str:
        """Return the URL to which the answer from `address` redirects. Raises `FetchError` unless it is an
        https URL, or both URLs are http on this machine.
        """
        target = urlsplit(urljoin(address, location))
        try:
            # Its path may be any: nothing is compared with it.
            found = AdapterURL.parse(f"{target.scheme}://{target.netloc}")
        except URLRefusedError as error:
            raise self._astray(f"the host redirects to a URL that OneSeek cannot follow: {error}") from None
        if found.scheme not in WEB or (found.scheme == "http" and self.url.scheme == "https"):
            raise self._astray("the host redirects to a URL without https://, which OneSeek does not follow")
        return quote(urlunsplit(target._replace(fragment="")), safe=_ENCODED)

    def _astray(self, reason: str) -> FetchError:
        return FetchError(
            self.url, "unreachable", reason, "Use the URL to which the redirect leads, if you trust it."
        )


_ENCODED = ":/?#[]@!$&'()*+,;=%~"
"""Characters that are not percent-encoded again in the URL of a redirect, which is already encoded."""
