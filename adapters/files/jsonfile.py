r"""JSON objects on disk: read with limits, written atomically, and in one canonical form.

The canonical form is the input of every digest, so it never changes: keys sorted by code point, no white
space, characters past ASCII as `\uXXXX`, and integers in decimal. A float without a fraction (below 2**53) is
written as an integer. Any other float is the shortest decimal that reads back as itself, in Python's
notation.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from adapters.errors import FileRefusedError
from adapters.files.atomic import staged_file
from adapters.files.regular import read_regular
from adapters.numerals import parse_number

_EXACT = 2**53
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATES = re.compile(r"(?:\\u[dD][89a-fA-F][0-9a-fA-F]{2})+")
_PAIR = re.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+")


def read_object(path: Path, limit: int, error: type[FileRefusedError]) -> dict[str, Any]:
    """Read the JSON object in the file `path`, which may have at most `limit` bytes.

    Raises `error` if the file does not exist, is not a regular file, is too large, or is not a UTF-8 JSON
    object. Also refuses a key that appears twice, NaN, Infinity, a lone surrogate, and a number that is too
    large.
    """
    try:
        data = read_regular(path, limit + 1)
    except OSError as problem:
        raise error(
            path, f"the file cannot be read ({problem.strerror})", "Check the path and its permissions."
        ) from problem
    if len(data) > limit:
        raise error(path, f"the file is larger than {limit} bytes", "Check that this is the right file.")
    return parse_object(data, path, error)


def parse_object(data: bytes, path: Path, error: type[FileRefusedError]) -> dict[str, Any]:
    """Parse the JSON object in `data`, with the checks of `read_object`. `path` is named in errors."""
    remedy = "Save or download the file again."
    try:
        text = data.decode("utf-8-sig")
        _refuse_half_characters(text)
        found: object = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=parse_number,
        )
    except (ValueError, RecursionError) as problem:
        raise error(path, f"the file is not valid JSON ({_first_line(problem)})", remedy) from problem
    if not isinstance(found, dict):
        raise error(path, "the file does not hold a JSON object", remedy)
    return found


def canonical_json(value: object) -> bytes:
    """Return `value` as canonical JSON, whose form the module's docstring defines: sorted keys, no white
    space, ASCII.
    """
    plain = _plain_numbers(value)
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON to `path` atomically: a concurrent reader, or a crash, sees either the old file
    or the new one.

    Raises `OSError` if the folder is not writable; then the old file is unchanged.
    """
    with staged_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice[:64]!r} appears twice in a JSON object; keep one of the two")
    return found


def _refuse_half_characters(text: str) -> None:
    """Raise `ValueError` if the JSON `text` escapes a lone surrogate. UTF-8 cannot encode it, so the value
    could not be written again.
    """
    if _SURROGATE.search(text) is None:
        return
    halves: list[str] = _SURROGATES.findall(text.replace("\\\\", ""))
    if any(_PAIR.fullmatch(run) is None for run in halves):
        raise ValueError(
            "the JSON text holds half of a character, a lone surrogate such as \\ud800; remove it"
        )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON, which allows finite numbers only")


def _first_line(problem: Exception) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(problem, RecursionError):
        return "nested too deeply"
    return str(problem).splitlines()[0][:120]


def _plain_numbers(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
