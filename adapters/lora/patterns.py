r"""Match module names with the patterns in `adapter_config.json`, in a form that is safe to match.

PEFT accepts any regular expression, so a file could stall the process that reads it. OneSeek accepts only the
forms that tools write: names, dots, `\d`, `[\d]`, `[0-9]`, alternatives between names, and at most two
repetitions (`.*`, `\d+`). Matching them takes at most cubic time in the length of a module's name, about
forty characters.
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
_TOKEN = rf"(?:{_GROUP}|\\\.|\.[*+]\??|\.|(?:\\d|\[\\d\]|\[0-9\])[*+]?|\w)"
_SAFE = re.compile(rf"\^?{_TOKEN}+\$?", re.ASCII)


@dataclass(frozen=True)
class ModulePattern:
    """A regular expression for module names from adapter_config.json, limited to a form that is fast to
    match.
    """

    text: str

    @classmethod
    def read(cls, text: str, path: Path, field: str) -> ModulePattern:
        """Check the pattern `text`, found in `field` of the file at `path`. Raises `AdapterError` if its form
        is not accepted.
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
                "a module pattern may hold only names, dots, \\d, (a|b) and at most two of .* and \\d+",
                "Simplify the pattern, or list the modules' names, such as layers.0.self_attn.q_proj.",
                field=field,
                value=text,
            )
        return cls(text)

    def matches_end(self, module: str) -> bool:
        """True if the pattern matches the whole of `module`, or its end after a dot. PEFT's rank and alpha
        patterns match in the same way.
        """
        return self._end.fullmatch(module) is not None

    def matches_whole(self, module: str) -> bool:
        """True if the pattern matches the whole of `module`. PEFT's target patterns match in the same way."""
        return self._whole.fullmatch(module) is not None

    @cached_property
    def _end(self) -> re.Pattern[str]:
        return re.compile(rf"(?:.*\.)?(?:{self.text})")

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(self.text)


def _ambiguous(text: str) -> bool:
    """True if a group like `(a|ab)` has an alternative that is the beginning of another, which slows matching
    down.
    """
    groups: list[str] = re.findall(_GROUP, text, re.ASCII)
    for group in groups:
        names = sorted(re.findall(r"\w+", group, re.ASCII))
        if any(longer.startswith(name) for name, longer in itertools.pairwise(names)):
            return True
    return False
