"""Parse numbers that a person or a client wrote as text: ASCII digits, no white space, no underscores.

Python's own `int` and `float` also accept `1_000`, ` 1 `, `٣`, `nan` and `inf`.
"""

from __future__ import annotations

import math
import re

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_integer(text: str) -> int:
    """Parse an integer such as `-12`. Raises `ValueError` for anything else."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("is not an integer; give one in digits, such as 12")
    return int(text)


def parse_number(text: str) -> float:
    """Parse a finite number such as `0.5` or `1e-4`. Raises `ValueError` for anything else."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(number := float(text)):
        raise ValueError("is not a finite number; give a number such as 0.5")
    return number
