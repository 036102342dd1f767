"""From a URL to a folder of this process's own, within limits, and from there into the registry.

What is fetched passes the checks of a local folder; nothing is served from where it was fetched to.
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
"""Told the bytes of the weights that have come, and how many there are to be, if that is known."""

_NAMELESS = "-"
"""A folder's name that gives no alias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What a fetch may take."""

    max_bytes: int = 2 << 30
    """Of all files; counted as they come."""
    seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A fetch to be made."""

    url: AdapterURL
    digest: str | None = None
    """What the adapter has to be; None takes what is there."""
    limits: FetchLimits = FetchLimits()
    follow_redirects: bool = False
    progress: Progress | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    """Set from another thread, it ends the fetch, which then raises `FetchError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedAdapter:
    """An adapter's files on this machine, for as long as they are needed to take them in."""

    url: AdapterURL
    folder: Path
    revision: str

    def add_to(self, registry: Registry, **given: Any) -> AddResult:
        """Make it a version, as `Registry.add` does, whose arguments `given` are and whose errors it raises.

        The ledger records the URL, of a repository with the commit.
        """
        url = replace(self.url, revision=self.revision) if self.revision else self.url
        details = {"url": str(url)}
        with self.shown_as_url():
            return registry.add(self.folder, details=details, **given)

    @contextmanager
    def shown_as_url(self) -> Generator[None]:
        """Errors from the block name the URL where they would name the folder."""
        try:
            yield
        except FileRefusedError as error:
            error.rename(self.folder, str(self.url))
            raise
        except RegistryError as error:
            raise RegistryError(str(error).replace(str(self.folder), str(self.url))) from None


@contextmanager
def fetched(fetch: Fetch, home: Path) -> Generator[FetchedAdapter]:
    """The adapter that `fetch` asks for, in a folder below `home` that is gone when the block ends.

    Raises `FetchError`, `AdapterError` for a config that is not a plain LoRA's, and `OSError` if the disk
    does not take it.
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
                reason = f"holds {digest}, and {fetch.digest} was asked for"
                remedy = "Name the version that you mean, or pin the new digest once you trust it."
                raise FetchError(fetch.url, "mismatch", reason, remedy)
        yield found


def add_from_url(registry: Registry, fetch: Fetch, home: Path, *, base: Base, **given: Any) -> AddResult:
    """Fetch an adapter and make it a version. Raises as `fetched` and `Registry.add` do; nothing is left."""
    with fetched(fetch, home) as found:
        return found.add_to(registry, base=base, **given)


def _refuse_file(url: AdapterURL) -> None:
    """Refuse the URL of a file before anything is asked for it."""
    suffix = PurePosixPath(url.name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        reason = "is a pickle, which can run code when it is read, so it is not fetched"
        remedy = f"Download it and convert it: oneseek adapters import {url.name}"
        raise FetchError(url, "not_adapter", reason, remedy)
    if suffix in (".safetensors", ".json"):
        remedy = "Name the folder that holds it."
        raise FetchError(url, "not_adapter", "is a file, and an adapter is a folder", remedy)


def _folder_name(url: AdapterURL) -> str:
    """The name under which a local folder would give the same alias."""
    try:
        names.FolderName.read(url.name)
    except ValueError:
        return _NAMELESS
    return url.name


def _download(fetch: Fetch, folder: Path) -> str:
    """Put the files of `fetch` into `folder`; the commit that they are of."""
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
    """The disk does not take what is fetched, which is no matter of the URL."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause
        super().__init__(cause)


class _Download:
    """The files of one folder, one after the other, within the limits of all."""

    def __init__(self, fetch: Fetch, remote: RemoteFolder, folder: Path) -> None:
        self._fetch = fetch
        self._remote = remote
        self._folder = folder
        self._ends = time.monotonic() + fetch.limits.seconds
        self._left = fetch.limits.max_bytes

    def run(self) -> str:
        """Fetch what is needed and what may be there; the commit."""
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
        """Fetch one file of at most `most` bytes; False if it is not there.

        One that is `optional` and that the host does not show is not there either.
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
            reason = f"broke off: {name} has {size} bytes, and {count} came"
            raise FetchError(self._fetch.url, "unreachable", reason, "Try again.")
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
        """Write `chunk` and what follows it in `opened`; the bytes in all."""
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
            raise FetchError(url, "stopped", "is not wanted any more", "Ask again.")
        if time.monotonic() > self._ends:
            reason = f"took longer than {limits.seconds:g} seconds (the setting fetch_timeout)"
            raise FetchError(url, "timeout", reason, "Raise the setting, or name a faster host.")

    def _too_large(self, name: str, most: int) -> FetchError:
        reason = f"{name} is larger than the {most} bytes that are left of the setting max_fetch_size"
        if name != WEIGHTS_FILE:
            reason = f"{name} is larger than {most} bytes"
        return FetchError(self._fetch.url, "too_large", reason, "Raise the setting, if the adapter is right.")

    def _no_adapter(self) -> FetchError:
        """What the folder holds instead of an adapter, as far as it can be asked."""
        found = self._names()
        self._refuse_pickle(found)
        deeper = sorted(name for name in found if name.endswith(f"/{CONFIG_FILE}"))
        if deeper:
            inner = deeper[-1].rpartition("/")[0]
            reason = f"holds no adapter itself, but {inner} in it does"
            return FetchError(self._fetch.url, "not_adapter", reason, f"Name {self._fetch.url}/{inner}.")
        return missing(self._fetch.url)

    def _no_weights(self) -> FetchError:
        self._refuse_pickle(self._names())
        reason = f"holds {CONFIG_FILE} and no {WEIGHTS_FILE}"
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
            reason = f"holds {pickle}, a pickle, which can run code when it is read, so it is not fetched"
            remedy = f"Download the folder and convert it: oneseek adapters import FOLDER/{pickle}"
            raise FetchError(self._fetch.url, "not_adapter", reason, remedy)


_MAX_NOTES_BYTES = 1 << 20


@contextmanager
def _disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error) from None
