"""Patterns over module names, as `adapter_config.json` holds them, in a form that cannot run away.

PEFT takes any regular expression. A file could then stall the process that reads it, so only the forms that
tools write are taken: names, dots, `\\d`, `[0-9]`, alternatives between names, and at most two repetitions
(`.*`, `\\d+`). Matching such a pattern is at most cubic in a module's name, which has some forty characters.
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
    """A regular expression of the safe kind."""

    text: str

    @classmethod
    def read(cls, text: str, path: Path, field: str) -> ModulePattern:
        """`text` from `field` of the file at `path`; `AdapterError` where it is not of the safe kind."""
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
        """Whether it matches the end of `module` from a dot on, as PEFT's rank and alpha patterns do."""
        return self._end.match(module) is not None

    def matches_whole(self, module: str) -> bool:
        """Whether the pattern matches the whole of `module`, as PEFT's target patterns do."""
        return self._whole.fullmatch(module) is not None

    @cached_property
    def _end(self) -> re.Pattern[str]:
        return re.compile(rf"(.*\.)?({self.text})$")

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(self.text)


def _ambiguous(text: str) -> bool:
    """Whether a group has an alternative that begins another, so that the matcher would try both."""
    groups: list[str] = re.findall(_GROUP, text, re.ASCII)
    for group in groups:
        names = sorted(re.findall(r"\w+", group, re.ASCII))
        if any(longer.startswith(name) for name, longer in itertools.pairwise(names)):
            return True
    return False
