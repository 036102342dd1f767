"""JSON objects on disk: read with bounds, written whole or not at all, and in one canonical form.

The canonical form is part of every digest, so it never changes: keys sorted by code point, no white space,
characters past ASCII as `\\uXXXX`, integers in decimal, a float without a fraction (below 2**53) as an
integer, any other float as the shortest decimal that reads back as itself, in Python's notation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from adapters.errors import FileRefusedError
from adapters.files.atomic import staged_file

_EXACT = 2**53


def read_object(path: Path, limit: int, error: type[FileRefusedError]) -> dict[str, Any]:
    """The JSON object in `path`, a file of at most `limit` bytes.

    Raises `error` where there is no such file, it is too large, it is not UTF-8, not JSON, not an object,
    names a key twice, or holds NaN or Infinity.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as problem:
        raise error(
            path, f"cannot be read ({problem.strerror})", "Check the path and who may read it."
        ) from problem
    if len(data) > limit:
        raise error(path, f"is larger than {limit} bytes", "Check that this is the file you meant.")
    return parse_object(data, path, error)


def parse_object(data: bytes, path: Path, error: type[FileRefusedError]) -> dict[str, Any]:
    """The JSON object in `data`, with the same refusals; `path` is where it came from."""
    remedy = "Save or download the file again."
    try:
        text = data.decode("utf-8-sig")
        found: object = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise error(path, f"is not valid JSON ({_first_line(problem)})", remedy) from problem
    if not isinstance(found, dict):
        raise error(path, "does not hold a JSON object", remedy)
    return found


def canonical_json(value: object) -> bytes:
    """`value` in the canonical form that the module's docstring fixes."""
    plain = _plain_numbers(value)
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` to `path` whole: a reader, or a crash, meets the old file or the new one.

    Raises `OSError` where the folder cannot be written; then the old file is as it was.
    """
    with staged_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for index, key in enumerate(keys) if key in keys[:index])
        raise ValueError(f"the key {twice[:64]!r} stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


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
