"""Fetch an adapter from a URL into a temporary folder, within limits of time and size, and add it to the
registry from there.

Fetched files pass the same checks as a local folder. Nothing is served from the temporary folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from adapters import names
from adapters.errors import FileRefusedError, RegistryError
from adapters.files.scratch import scratch_folder
from adapters.lora.card import CARD_FILE
from adapters.lora.config import CONFIG_FILE, MAX_CONFIG_BYTES, LoraConfig
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import MANIFEST_FILE
from adapters.lora.tensorfile import WEIGHTS_FILE
from adapters.pickles import PICKLE_SUFFIXES, PICKLES
from adapters.registry.intake import Base
from adapters.registry.registry import AddResult, Registry
from adapters.remote.errors import FetchError
from adapters.remote.failures import explain, missing
from adapters.remote.stores import CHUNK, OpenedFile, RemoteFolder, open_folder_at
from adapters.remote.url import AdapterURL

Progress = Callable[[int, int | None], None]
"""Function that is called with the number of bytes of the weights that have arrived, and the total number if
it is known.
"""

_NAMELESS = "-"
"""Name of the temporary folder if the URL's last part gives no valid alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """The limits of time and size for a fetch."""

    max_bytes: int = 2 << 30
    """Maximum total size of all fetched files in bytes, checked as they arrive."""
    seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """What to fetch: an adapter's URL, the expected digest and the limits."""

    url: AdapterURL
    digest: str | None = None
    """The digest that the adapter must have. None accepts any adapter."""
    limits: FetchLimits = FetchLimits()
    follow_redirects: bool = False
    progress: Progress | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    """Event that another thread sets to end the fetch, which then raises `FetchError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedAdapter:
    """A fetched adapter's files on this machine, kept until they are in the registry."""

    url: AdapterURL
    folder: Path
    revision: str

    def add_to(self, registry: Registry, **given: Any) -> AddResult:
        """Add the adapter to the registry. `given` are further arguments of `Registry.add`, whose errors are
        raised.

        The ledger records the URL, with the commit if the URL is one of a repository.
        """
        url = replace(self.url, revision=self.revision) if self.revision else self.url
        details = {"url": str(url)}
        with self.shown_as_url():
            return registry.add(self.folder, details=details, **given)

    @contextmanager
    def shown_as_url(self) -> Generator[None]:
        """Replace the temporary folder's path by the URL in errors that the block raises."""
        try:
            yield
        except FileRefusedError as error:
            error.rename(self.folder, str(self.url))
            raise
        except RegistryError as error:
            raise RegistryError(str(error).replace(str(self.folder), str(self.url))) from None


@contextmanager
def fetched(fetch: Fetch, home: Path) -> Generator[FetchedAdapter]:
    """Fetch the adapter into a temporary folder below `home`, and delete that folder when the block ends.

    Raises `FetchError`, `AdapterError` if the adapter's config is not a plain LoRA's, and `OSError` if the
    files cannot be written to the disk.
    """
    _refuse_file(fetch.url)
    with scratch_folder(home / "fetch") as scratch:
        folder = scratch / _folder_name(fetch.url)
        folder.mkdir()
        found = FetchedAdapter(url=fetch.url, folder=folder, revision=_download(fetch, folder))
        if fetch.digest is not None:
            with found.shown_as_url():
                digest = adapter_digest(folder)
            if digest != fetch.digest:
                raise FetchError(
                    fetch.url,
                    "mismatch",
                    f"the adapter at the URL has the digest {digest}, not {fetch.digest}",
                    "Use the URL of the version that you want, or pin the new digest if you trust it.",
                )
        yield found


def add_from_url(registry: Registry, fetch: Fetch, home: Path, *, base: Base, **given: Any) -> AddResult:
    """Fetch an adapter and add it to the registry as a version. Raises the errors of `fetched` and
    `Registry.add`; no files are left then.
    """
    with fetched(fetch, home) as found:
        return found.add_to(registry, base=base, **given)


def _refuse_file(url: AdapterURL) -> None:
    """Raise `FetchError` if the URL names a file instead of a folder. No request is sent for this check."""
    suffix = PurePosixPath(url.name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise FetchError(
            url,
            "not_adapter",
            "the URL names a pickle, which can run code when it is read, so it is not fetched",
            f"Download the file and convert it: oneseek adapters import {url.name}",
        )
    if suffix in (".safetensors", ".json"):
        raise FetchError(
            url,
            "not_adapter",
            "the URL names a file, but an adapter is a folder",
            "Give the URL of the folder that holds the file.",
        )


def _folder_name(url: AdapterURL) -> str:
    """Return the URL's folder name, from which the registry derives an alias as for a local folder; `-` if it
    gives no valid alias.
    """
    try:
        names.FolderName.read(url.name)
    except ValueError:
        return _NAMELESS
    return url.name


def _download(fetch: Fetch, folder: Path) -> str:
    """Download the files of `fetch` into `folder`. Returns the repository's commit, or an empty string for
    other hosts.
    """
    try:
        with open_folder_at(fetch.url, follow_redirects=fetch.follow_redirects) as remote:
            return _Download(fetch, remote, folder).run()
    except (FetchError, FileRefusedError, _DiskError) as error:
        if isinstance(error, _DiskError):
            raise error.cause from None
        raise
    except Exception as error:
        raise explain(error, fetch.url) from None


class _DiskError(Exception):
    """Writing a fetched file to the disk failed. The URL is not the cause."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause
        super().__init__(cause)


class _Download:
    """Downloads the files of one adapter's folder one by one, within the limits of time and size for all of
    them.
    """

    def __init__(self, fetch: Fetch, remote: RemoteFolder, folder: Path) -> None:
        self._fetch = fetch
        self._remote = remote
        self._folder = folder
        self._ends = time.monotonic() + fetch.limits.seconds
        self._left = fetch.limits.max_bytes

    def run(self) -> str:
        """Fetch the adapter's required files, and the optional files that exist. Returns the repository's
        commit, or an empty string for other hosts.
        """
        if not self._file(CONFIG_FILE, MAX_CONFIG_BYTES):
            raise self._no_adapter()
        found = FetchedAdapter(url=self._fetch.url, folder=self._folder, revision="")
        with found.shown_as_url():
            LoraConfig.read(self._folder)  # before what is large
        self._file(MANIFEST_FILE, _MAX_NOTES_BYTES, optional=True)
        if not self._file(WEIGHTS_FILE, self._left, progress=self._fetch.progress):
            raise self._no_weights()
        self._file(CARD_FILE, _MAX_NOTES_BYTES, optional=True)
        return self._remote.revision

    def _file(
        self, name: str, most: int, *, optional: bool = False, progress: Progress | None = None
    ) -> bool:
        """Fetch one file of at most `most` bytes. Returns False if the host does not have the file.

        An `optional` file that the host refuses to send counts as missing.
        """
        self._check()
        with ExitStack() as stack:
            try:
                opened, size = self._remote.open(name)
                stack.callback(opened.close)
                first = opened.read(CHUNK)  # some libraries ask only now
            except Exception as error:
                failure = error if isinstance(error, FetchError) else explain(error, self._fetch.url)
                if failure.failure == "missing" or (optional and failure.failure == "forbidden"):
                    return False
                raise failure from None
            most = min(most, self._left)
            if size is not None and size > most:
                raise self._too_large(name, most)
            count = self._copy(first, opened, name, most, size, progress)
        self._left -= count
        if size is not None and count != size:
            raise FetchError(
                self._fetch.url,
                "unreachable",
                f"the fetch was interrupted: {name} has {size} bytes, but {count} arrived",
                "Fetch the adapter again.",
            )
        return True

    def _copy(
        self,
        chunk: bytes,
        opened: OpenedFile,
        name: str,
        most: int,
        size: int | None,
        progress: Progress | None,
    ) -> int:
        """Write the first bytes `chunk` and the rest of `opened` to the local file `name`. Returns the number
        of bytes written.
        """
        count = 0
        with _disk(), (self._folder / name).open("xb") as target:
            while chunk:
                count += len(chunk)
                if count > most:
                    raise self._too_large(name, most)
                target.write(chunk)
                if progress is not None:
                    progress(count, size)
                chunk = self._read(opened)
        return count

    def _read(self, opened: OpenedFile) -> bytes:
        self._check()
        try:
            return opened.read(CHUNK)
        except Exception as error:
            raise explain(error, self._fetch.url) from None

    def _check(self) -> None:
        url, limits = self._fetch.url, self._fetch.limits
        if self._fetch.stop.is_set():
            raise FetchError(url, "stopped", "the fetch was cancelled", "Fetch the adapter again.")
        if time.monotonic() > self._ends:
            raise FetchError(
                url,
                "timeout",
                f"the fetch took longer than {limits.seconds:g} seconds (the setting fetch_timeout)",
                "Raise the setting fetch_timeout, or fetch from a faster host.",
            )

    def _too_large(self, name: str, most: int) -> FetchError:
        reason = (
            f"the file {name} is larger than the {most} bytes that the setting max_fetch_size still allows"
        )
        if name != WEIGHTS_FILE:
            reason = f"the file {name} is larger than {most} bytes"
        return FetchError(
            self._fetch.url,
            "too_large",
            reason,
            "If this is the right adapter, raise the setting max_fetch_size.",
        )

    def _no_adapter(self) -> FetchError:
        """Return the error for a URL without adapter_config.json. If the host can list the folder, the error
        says what the folder holds instead.
        """
        found = self._names()
        self._refuse_pickle(found)
        deeper = sorted(name for name in found if name.endswith(f"/{CONFIG_FILE}"))
        if deeper:
            inner = deeper[-1].rpartition("/")[0]
            reason = f"the folder holds no adapter itself, but its subfolder {inner} does"
            return FetchError(
                self._fetch.url, "not_adapter", reason, f"Use the URL {self._fetch.url}/{inner}."
            )
        return missing(self._fetch.url)

    def _no_weights(self) -> FetchError:
        self._refuse_pickle(self._names())
        reason = f"the folder holds {CONFIG_FILE} but no {WEIGHTS_FILE}"
        remedy = "Save the adapter with PEFT's save_pretrained, which writes both."
        return FetchError(self._fetch.url, "not_adapter", reason, remedy)

    def _names(self) -> list[str]:
        try:
            return self._remote.names() or [name for name in PICKLES if self._is_there(name)]
        except Exception:  # it is only asked what would help
            return []

    def _is_there(self, name: str) -> bool:
        self._check()
        try:
            self._remote.open(name)[0].close()
        except Exception:
            return False
        return True

    def _refuse_pickle(self, found: list[str]) -> None:
        pickle = next((name for name in PICKLES if name in found), None)
        if pickle is not None:
            raise FetchError(
                self._fetch.url,
                "not_adapter",
                f"the folder holds {pickle}, a pickle, which can run code, so it is not fetched",
                f"Download the folder and convert it: oneseek adapters import FOLDER/{pickle}",
            )


_MAX_NOTES_BYTES = 1 << 20


@contextmanager
def _disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from None
