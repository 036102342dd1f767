"""Errors for a file, a name or a change that is refused. Each message says what was found and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

_SHOWN = 80


def format_value(value: object) -> str:
    """Format `value` for a message: quoted as Python would, on one line, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class FileRefusedError(ValueError):
    """A file of a base or an adapter cannot be used.

    `str(error)` holds the whole path, for the log and the command line. `public` is the message with only the
    file's name, for an HTTP response.
    """

    def __init__(
        self, path: Path, reason: str, remedy: str, *, field: str = "", value: object = None
    ) -> None:
        self.path = path
        self.field = field
        self.value = value
        self.reason = reason
        self.remedy = remedy
        found = f" {field} = {format_value(value)}:" if field else ""
        super().__init__(f"{path}:{found} {reason}. {remedy}")

    @property
    def public(self) -> str:
        """The message with the file's name in place of its path."""
        return str(self).replace(str(self.path), self.path.name)

    def rename(self, folder: Path, shown: str) -> None:
        """Return this error with the path `folder` in its message replaced by `shown`, such as the URL that
        the folder came from.
        """
        self.args = (str(self).replace(str(folder), shown),)


_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


def passing_cause(error: BaseException) -> OSError | None:
    """Return the operating system's error behind `error` if it is temporary, such as no file descriptors or
    memory left.

    The operation can be retried then, because nothing is wrong with the file itself. Returns None for any
    other cause.
    """
    found: BaseException | None = error
    while isinstance(found, FileRefusedError):
        found = found.__cause__
    return found if isinstance(found, OSError) and found.errno in _PASSING else None


class AdapterError(FileRefusedError):
    """An adapter's files cannot be served."""


class BaseModelError(FileRefusedError):
    """A base model's files cannot be served."""


class UnknownAdapterError(LookupError):
    """No adapter has this name. The message is safe to show to clients: short, ASCII, with similar names as a
    hint.
    """

    def __init__(self, name: str, hints: Iterable[str] = ()) -> None:
        self.name = name
        self.hints = tuple(hints)
        hint = f" Did you mean {' or '.join(self.hints)}?" if self.hints else ""
        super().__init__(f"There is no adapter {format_value(name)}.{hint}")


class AdapterRejectedError(ValueError):
    """The registry refuses to add or remove an adapter. The message says why, and nothing has changed."""


class RegistryError(ValueError):
    """The registry on disk refuses a change. The message says why, and nothing has changed."""


class LedgerError(FileRefusedError):
    """The ledger cannot be read, extended or trusted. Nothing was written."""


class UnknownInLedgerError(LookupError):
    """The ledger has no entry about the requested subject or digest."""
