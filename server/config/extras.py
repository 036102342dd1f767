"""Check whether an extra's packages are installed (`pip install 'oneseek[NAME]'`), with the error if they are
not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence


class ExtraMissingError(RuntimeError):
    """A verb of the command line needs packages that are not installed. The message names them and the
    command to install them.
    """


def require(what: str, extra: str, packages: Sequence[str]) -> None:
    """Raise `ExtraMissingError` unless all of `packages` are installed. Does not import them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExtraMissingError(
            f"{what} needs {', '.join(missing)}, which is not installed: pip install 'oneseek[{extra}]'"
        )
