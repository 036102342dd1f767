"""Parts of OneSeek that need an extra (`pip install 'oneseek[NAME]'`), and the error if it is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence


class ExtraMissingError(RuntimeError):
    """A verb needs packages that are not installed. The message names them and the command to install."""


def require(what: str, extra: str, packages: Sequence[str]) -> None:
    """Raise `ExtraMissingError` unless all of `packages` can be imported. Imports none of them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissingError(
            f"{what} needs {', '.join(missing)}, which is not installed: pip install 'oneseek[{extra}]'"
        )
