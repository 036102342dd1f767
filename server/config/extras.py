"""Parts of OneSeek that come as extras, and what is said where one is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence


class ExtraMissingError(RuntimeError):
    """A verb needs packages that are not installed; says which, and how to get them."""


def require(what: str, extra: str, packages: Sequence[str]) -> None:
    """Raises `ExtraMissingError` unless all of `packages` can be imported. Imports none of them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissingError(
            f"{what} needs {', '.join(missing)}, not installed here: pip install 'oneseek[{extra}]'"
        )
