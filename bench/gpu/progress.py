"""Progress of a GPU run, for people."""

from __future__ import annotations

import sys

OUT_OF_TIME = "out of time"
"""First words of a note about points that were left out. A continued run measures these points."""


def print_progress(text: str) -> None:
    """Write a line to stderr at once."""
    print(text, file=sys.stderr, flush=True)
