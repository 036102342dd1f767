"""Report a full disk as one error that names the path, whichever library noticed it."""

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
"""Parts of the messages with which torch and safetensors report a full disk. They give no error number."""


@contextmanager
def naming(target: Path) -> Generator[None]:
    """Make a full-disk error inside the block name `target`, unless it already names a file.

    Errors of torch and safetensors become `OSError`.
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
