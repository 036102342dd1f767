"""Why a file, a name or a change was refused. Each message names what was found, and what helps."""

from __future__ import annotations

from pathlib import Path

_SHOWN = 80


def shown(value: object) -> str:
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
        super().__init__(self._said(str(path)))

    @property
    def public(self) -> str:
        """The message with the file's name in place of its path."""
        return self._said(self.path.name)

    def _said(self, where: str) -> str:
        found = f" {self.field} = {shown(self.value)}:" if self.field else ""
        return f"{where}:{found} {self.reason}. {self.remedy}"


class AdapterError(FileRefusedError):
    """An adapter's files are not what can be served."""


class BaseModelError(FileRefusedError):
    """A base's files are not what can be served."""
