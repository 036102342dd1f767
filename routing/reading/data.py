"""Find lines of configuration files and tables, which count as code only together with the lines around them.

"name: web" alone may be a sentence. Below "services:", and indented, it is YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

_FEWEST = 3
"""Minimum number of lines of YAML in succession."""
_PAIR = re.compile(r" *(?:- )*[A-Za-z_][\w.-]*:(?: +\S+(?: \S+){0,4})? *\Z| *- \S+ *\Z", re.ASCII)
"""Matches a line of YAML: a key and a short value, or an item of a list."""
_PARENT = re.compile(r" *(?:- )*[\w.-]+: *\Z", re.ASCII)
_SECTION = re.compile(r"\[[\w.:\" -]+\] *\Z")
_ASSIGNMENT = re.compile(r" *[\w.-]+ *= *\S")
_TOTAL, _FILE = re.compile(r"total \d+\Z"), re.compile(r"[-dl][rwxst-]{9}")
_COLUMNS = re.compile(r"(?:[^\s,;]+[,;]){2,}[^\s,;]*\Z")
_OPENED = re.compile(
    r" *<(?:html|head|body|title|div|span|p|h[1-6]|ul|ol|li|table|tr|td|th|form|section|nav)\b"
)
_CLOSED = re.compile(r" *</\w+>")


def data_lines(lines: Sequence[str]) -> frozenset[int]:
    """Return the indexes of the lines that are data: YAML, sections of INI files, columns separated by
    commas, and text between HTML tags.
    """
    found: set[int] = set()
    start = 0
    for number in range(len(lines) + 1):
        if number < len(lines) and _PAIR.match(lines[number]):
            continue
        run = lines[start:number]
        if len(run) >= _FEWEST and any(line[0] == " " for line in run) and any(map(_PARENT.match, run)):
            found.update(range(start, number))
        start = number + 1
    for number, (line, after) in enumerate(pairwise(lines)):
        if (_SECTION.match(line) and _ASSIGNMENT.match(after)) or (_TOTAL.match(line) and _FILE.match(after)):
            found.add(number)
        elif _COLUMNS.match(line) and _COLUMNS.match(after):
            found.update((number, number + 1))
        elif number and _OPENED.match(lines[number - 1]) and _CLOSED.match(after):
            found.add(number)
    return frozenset(found)
