"""Why a file, a name or a change was refused. Each message names what was found, and what helps."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

_SHOWN = 80


def format_value(value: object) -> str:
    """`value` as it may stand in a message: quoted as Python would, on one line, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class FileRefusedError(ValueError):
    """A file of a base or an adapter cannot be used.

    `str(error)` names the whole path, for the log and the command line; `public` names no folder of the
    host, for an HTTP answer.
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
        """Have the message say `shown`, such as a URL, for `folder`."""
        self.args = (str(self).replace(str(folder), shown),)


_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})


def passing_cause(error: BaseException) -> OSError | None:
    """The error of the system behind `error` that says nothing of a file and goes by itself, if there is one.

    File descriptors or memory are used up: what is asked again later succeeds.
    """
    found: BaseException | None = error
    while isinstance(found, FileRefusedError):
        found = found.__cause__
    return found if isinstance(found, OSError) and found.errno in _PASSING else None


class AdapterError(FileRefusedError):
    """An adapter's files are not what can be served."""


class BaseModelError(FileRefusedError):
    """A base's files are not what can be served."""


class UnknownAdapterError(LookupError):
    """No adapter has this name. The message is safe to show: bounded, ASCII, with close matches as a hint."""

    def __init__(self, name: str, hints: Iterable[str] = ()) -> None:
        self.name = name
        self.hints = tuple(hints)
        hint = f" Did you mean {' or '.join(self.hints)}?" if self.hints else ""
        super().__init__(f"There is no adapter {format_value(name)}.{hint}")


class AdapterRejectedError(ValueError):
    """The registry does not take or remove an adapter: the message says why, and nothing changed."""


class RegistryError(ValueError):
    """The registry on disk does not make a change: the message says why, and nothing changed."""


class LedgerError(FileRefusedError):
    """The ledger cannot be read, continued or relied on; nothing was written."""


class UnknownInLedgerError(LookupError):
    """No entry of the ledger is about this subject or digest."""
