r"""Matches module names with the patterns in `adapter_config.json`, limited to forms that match fast.

PEFT accepts any regular expression, so a file could stall the process that reads it. Only the forms that
tools write are accepted: names, dots, `\d`, `[0-9]`, alternatives between names, and at most two repetitions
(`.*`, `\d+`). Matching such a pattern is at most cubic in a module's name, which has about forty characters.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adapters.errors import AdapterError

_MAX_LENGTH = 512
_MAX_REPEATS = 2
_GROUP = r"\((?:\?:)?\w+(?:\|\w+)*\)"
_TOKEN = rf"(?:{_GROUP}|\\\.|\.[*+]\??|\.|(?:\\d|\[0-9\])[*+]?|\w)"
_SAFE = re.compile(rf"\^?{_TOKEN}+\$?", re.ASCII)


@dataclass(frozen=True)
class ModulePattern:
    """A regular expression in `target_modules` or a pattern field, limited to a safe form."""

    text: str

    @classmethod
    def read(cls, text: str, path: Path, field: str) -> ModulePattern:
        """Read `text` from `field` of the file at `path`. Raises `AdapterError` if it is not of the accepted
        kind.
        """
        short = len(text) <= _MAX_LENGTH
        if (
            not short
            or not _SAFE.fullmatch(text)
            or len(re.findall(r"[*+]", text)) > _MAX_REPEATS
            or _ambiguous(text)
        ):
            raise AdapterError(
                path,
                "a pattern may hold names, dots, \\d, (a|b) and at most two of .* and \\d+",
                "Write the modules' names, such as layers.0.self_attn.q_proj.",
                field=field,
                value=text,
            )
        return cls(text)

    def matches_end(self, module: str) -> bool:
        """True if the pattern matches the end of `module` after a dot, like PEFT's rank and alpha
        patterns.
        """
        return self._end.fullmatch(module) is not None

    def matches_whole(self, module: str) -> bool:
        """True if the pattern matches the whole of `module`, as PEFT's target patterns do."""
        return self._whole.fullmatch(module) is not None

    @cached_property
    def _end(self) -> re.Pattern[str]:
        return re.compile(rf"(?:.*\.)?(?:{self.text})")

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(self.text)


def _ambiguous(text: str) -> bool:
    """True if an alternative in a group is the beginning of another alternative, so that the matcher would
    have to try both.
    """
    groups: list[str] = re.findall(_GROUP, text, re.ASCII)
    for group in groups:
        names = sorted(re.findall(r"\w+", group, re.ASCII))
        if any(longer.startswith(name) for name, longer in itertools.pairwise(names)):
            return True
    return False
