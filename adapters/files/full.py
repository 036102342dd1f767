"""A disk that is full: one error that names the place, however a library has said it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk or a quota that is full, or of a limit on the size of files."""

_NUMBERS = "|".join(map(str, sorted(FULL)))
_SAID = re.compile(
    rf"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|\(os error (?:{_NUMBERS})\)"
)
"""How torch (which names no error) and safetensors say it."""


@contextmanager
def naming(target: Path) -> Generator[None]:
    """Have the error of a disk that is full, inside the block, name `target` unless it names a file.

    The errors of torch and safetensors become an `OSError` too.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(target)
        raise
    except Exception as error:
        if _SAID.search(str(error)) is None:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
