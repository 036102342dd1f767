"""Print the progress of a GPU benchmark to standard error."""

from __future__ import annotations

import sys

OUT_OF_TIME = "out of time"
"""Beginning of the note in the result file that lists the measuring points left out for lack of time. A run
that continues the file (--resume) measures them.
"""


def print_progress(text: str) -> None:
    """Print a line to standard error without buffering."""
    print(text, file=sys.stderr, flush=True)
