"""Turn a full-disk error of Python, torch or safetensors into an `OSError` that names the path."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers for a full disk, a full quota, or a limit on file sizes."""

_NUMBERS = "|".join(map(str, sorted(FULL)))
_SAID = re.compile(
    rf"PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+|\(os error (?:{_NUMBERS})\)"
)
"""Matches the messages with which torch and safetensors report a full disk. Their errors have no error
number.
"""


@contextmanager
def naming(target: Path) -> Generator[None]:
    """Run the block, and add the path `target` to a full-disk error that names no file.

    Full-disk errors of torch and safetensors become `OSError`.
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
