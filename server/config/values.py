"""Parse text into a setting's value by its type, and say what is wrong with text that does not fit."""

from __future__ import annotations

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from adapters.numerals import parse_integer, parse_number

Raw: TypeAlias = str | Sequence[str] | Mapping[str, str] | None
"""A setting's value before parsing: text, a list or mapping of texts, or None for an explicit `null`."""


@dataclass(frozen=True, slots=True)
class Located:
    """A setting's value before parsing, with its origin, such as `oneseek.yaml:3`."""

    raw: Raw
    origin: str


@dataclass(frozen=True, slots=True)
class Entries:
    """Named sections of the settings before parsing, such as the bases: name → option path → value."""

    by_name: Mapping[str, Mapping[str, Located]]


SIZE = "size"
Size = Annotated[int, SIZE]
"""Type of settings that are a number of bytes, written as a number or as `512MiB`, `2GB`…"""

TABLES = "tables"
Tables = Annotated[Mapping[str, str], TABLES]
"""Type of settings that hold named sections, each as JSON text. The file has a mapping of mappings, a flag a
JSON object.
"""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE_TEXT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*((?:[kmgt]i?)?)b?", re.IGNORECASE | re.ASCII)
MAPPING = typing.get_origin(Mapping[str, str])
_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class SettingsError(ValueError):
    """A setting is unknown or its value is invalid. The message names the setting, the problem and the
    remedy.
    """

    def __init__(self, name: str, problem: str, origin: str | None = None) -> None:
        super().__init__(name, problem, origin)
        self.name = name
        self.problem = problem
        self.origin = origin

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.name}: {self.problem}{where}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as `; did you mean 'port'?`. Empty if no known name is similar."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def parse_size(text: str) -> int:
    """Parse `4096`, `4k`, `4KiB`, `1.5GiB`… into bytes. Units with `i` are powers of 1024, others of 1000."""
    match = _SIZE_TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size; use a number of bytes, or a number with a unit, such as 2GiB")
    number, unit = match.groups()
    scale = (_UNITS | _BINARY_UNITS)[unit.lower()]
    return math.floor(float(number) * scale) if "." in number else int(number) * scale


def render_size(size: int) -> str:
    """Format a number of bytes in the largest binary unit that divides it."""
    for name, unit in reversed(_BINARY_UNITS.items()):
        if size and size % unit == 0:
            return f"{size // unit}{name.capitalize()}B"
    return str(size)


def parse_value(hint: object, raw: Raw) -> object:
    """Parse `raw` as a value of the type `hint`. Raises `ValueError` with a message such as "is not a
    number".
    """
    return _parser(hint)(raw)


def format_raw(raw: Raw) -> str:
    """Format an unparsed value as error messages quote it."""
    if isinstance(raw, Mapping):
        return repr(dict(raw))
    return repr(raw if raw is None or isinstance(raw, str) else list(raw))


def _parser(hint: object) -> Callable[[Raw], object]:
    if hint == Size:
        return _scalar(parse_size)
    if hint == Tables:
        return _tables
    if typing.get_origin(hint) is Literal:
        return _scalar(lambda text: _choice(text, typing.get_args(hint)))
    return _PARSERS[typing.get_origin(hint) or hint]


def _scalar(convert: Callable[[str], object]) -> Callable[[Raw], object]:
    def parse(raw: Raw) -> object:
        if not isinstance(raw, str):
            raise ValueError("is a list or a mapping, but this setting needs a single value; give one")
        return convert(raw)

    return parse


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false; set this setting to true or false") from None


def _choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(
            f"is not a value of this setting; use one of {', '.join(choices)}{closest(text, choices)}"
        )
    return text


def _listed(raw: Raw) -> tuple[str, ...]:
    return _items(raw, lambda text: text.split(","))


def list_pairs(raw: Raw) -> tuple[str, ...]:
    """Return the items of a setting of the form NAME=VALUE,NAME=VALUE. A value in brackets, such as a JSON
    object, may have commas.

    Raises `ValueError` if there are none.
    """
    return _items(raw, _split_pairs)


def _items(raw: Raw, split: Callable[[str], Sequence[str]]) -> tuple[str, ...]:
    if isinstance(raw, str):
        parts = tuple(part for part in (piece.strip() for piece in split(raw)) if part)
        if not parts:  # such as the keys of a script whose variables are empty
            raise ValueError("is empty; give the setting at least one item, or leave it out")
        return parts
    if raw is None or isinstance(raw, Mapping):
        raise ValueError("is not a list; give this setting a list, such as a,b or [a, b]")
    return tuple(raw)


def _split_pairs(text: str) -> list[str]:
    """Split `text` at its commas, except those within `{}` or `[]`. If a bracket is not closed, split at all
    commas.
    """
    parts, begin, depth, quoted = list[str](), 0, 0, False
    for place, sign in enumerate(text):
        if sign == '"' and depth:
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "{[":
            depth += 1
        elif sign in "}]":
            depth = max(0, depth - 1)
        elif sign == "," and not depth:
            parts.append(text[begin:place])
            begin = place + 1
    return text.split(",") if depth else [*parts, text[begin:]]


def _mapped(raw: Raw) -> Mapping[str, str]:
    if isinstance(raw, Mapping):
        return types.MappingProxyType(dict(raw))
    pairs: dict[str, str] = {}
    for item in list_pairs(raw):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise ValueError(f"holds {item!r}, but each item of this setting has the form KEY=VALUE")
        if key in pairs:
            raise ValueError(f"holds the key {key!r} twice; remove one of the two from the setting")
        pairs[key] = value
    return types.MappingProxyType(pairs)


def _tables(raw: Raw) -> Mapping[str, str]:
    if isinstance(raw, Mapping):
        return types.MappingProxyType(dict(raw))
    try:
        value: object = json.loads(raw) if isinstance(raw, str) else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object; write this setting as JSON, or set it in oneseek.yaml")
    named = typing.cast("dict[str, object]", value)
    return types.MappingProxyType({name: json.dumps(item) for name, item in named.items()})


_PARSERS: dict[object, Callable[[Raw], object]] = {
    str: _scalar(str),
    int: _scalar(parse_integer),
    float: _scalar(parse_number),
    bool: _scalar(_boolean),
    Path: _scalar(Path),
    tuple: _listed,
    MAPPING: _mapped,
}


def within(name: str, value: float | None, least: float, most: float | None) -> None:
    """Raise `SettingsError` if `value` is below `least` or above `most`. None is always accepted."""
    if value is None or (value >= least and (most is None or value <= most)):
        return
    wanted = f"at least {least}" if most is None else f"from {least} to {most}"
    raise SettingsError(name, f"{value} is out of range; use {wanted}")


def check_flag(flag: str, value: str | None, check: Callable[[str], str]) -> str | None:
    """Return `check(value)`. Turns its `ValueError` into a `SettingsError` that names the flag."""
    if value is None:
        return None
    try:
        return check(value)
    except ValueError as error:
        raise SettingsError(flag, str(error)) from None
