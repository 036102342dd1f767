"""Options as a settings class declares them: their names on every surface, their help, and text to value.

Reads types, defaults and docstrings off frozen dataclasses; knows no particular setting.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import math
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

Raw: TypeAlias = str | Sequence[str] | Mapping[str, str] | None
"""A value before it has a type: text, a list or a mapping of texts, or an explicit nothing."""

SIZE = "size"
Size = Annotated[int, SIZE]
"""Bytes; written as a number or as `512MiB`, `2GB`…"""

SECRET = {"secret": True}
"""Field metadata of a value that is never shown."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE_TEXT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*((?:[kmgt]i?)?)b?", re.IGNORECASE)
_MAPPING = typing.get_origin(Mapping[str, str])
_METAVARS: dict[object, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH"}
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
    """A setting is unknown or has a value that it cannot have; says which, why, and what would do."""

    def __init__(self, name: str, problem: str, origin: str | None = None) -> None:
        super().__init__(name, problem, origin)
        self.name = name
        self.problem = problem
        self.origin = origin

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.name}: {self.problem}{where}"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting, as every surface sees it."""

    path: str
    """Where its value lives: `port`, `routing.threshold`."""
    hint: object
    """Its type, without `None`."""
    optional: bool
    """Whether `None` is a value."""
    default: object
    help: str
    secret: bool

    @property
    def name(self) -> str:
        """What people call it. A section's `kind` goes by the name of its section."""
        return self.path.removesuffix(".kind")

    @property
    def identifier(self) -> str:
        """Its name as a Python identifier, such as `routing_threshold`."""
        return self.name.replace(".", "_")

    @property
    def flag(self) -> str:
        """Such as `--routing-threshold`."""
        return "--" + self.identifier.replace("_", "-")

    def variable(self, prefix: str) -> str:
        """Its environment variable, such as `ONESEEK_ROUTING_THRESHOLD`."""
        return prefix + self.identifier.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, where they are few and named."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else ()

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.hint == Size:
            return "SIZE"
        if typing.get_origin(self.hint) is _MAPPING:
            return "KEY=VALUE"
        return _METAVARS.get(self.hint, "TEXT")

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return typing.get_origin(self.hint) in (tuple, _MAPPING)

    def parse(self, raw: Raw, origin: str) -> object:
        """The value that `raw` stands for. Raises `SettingsError` naming setting, value and remedy."""
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "none")):
            if self.optional:
                return None
            if raw is None or not raw.strip():
                raise SettingsError(self.name, "has no value; give one or leave it out", origin)
        try:
            return _parser(self.hint)(raw)
        except ValueError as error:
            shown = "the value given" if self.secret else repr(raw if isinstance(raw, str) else _plain(raw))
            raise SettingsError(self.name, f"{shown} {error}", origin) from None

    def render(self, value: object) -> str:
        """`value` as one line of text; secrets are counted, never shown."""
        if value is None:
            return "none"
        if self.secret and isinstance(value, tuple):
            return f"{len(typing.cast('tuple[object, ...]', value))} given, not shown"
        if isinstance(value, bool):
            return str(value).lower()
        if self.hint == Size and isinstance(value, int):
            return render_size(value)
        if isinstance(value, Mapping):
            pairs = typing.cast("Mapping[str, str]", value).items()
            return ", ".join(f"{key}={item}" for key, item in pairs) or "none"
        if isinstance(value, tuple):
            return ", ".join(map(str, typing.cast("tuple[object, ...]", value))) or "none"
        return str(value)


def options_of(settings: type) -> tuple[Option, ...]:
    """Every option of a settings class, those of its sections (nested dataclasses) included, in order."""
    found: list[Option] = []
    hints = typing.get_type_hints(settings, include_extras=True)
    docs = _field_docs(settings)
    for item in fields(settings):
        hint, optional = _without_none(hints[item.name])
        if isinstance(hint, type) and is_dataclass(hint):
            found += (_inside(item.name, option) for option in options_of(hint))
            continue
        secret = bool(item.metadata.get("secret"))
        found.append(Option(item.name, hint, optional, _default(item), docs.get(item.name, ""), secret))
    return tuple(found)


def closest(name: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean 'port'?`, or nothing where no known name is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def parse_size(text: str) -> int:
    """Bytes of `4096`, `4k`, `4KiB`, `1.5GiB`…: decimal units by thousands, `i` units by 1024."""
    match = _SIZE_TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size; write bytes or a unit, such as 512MiB or 2GiB")
    number, unit = match.groups()
    scale = (_UNITS | _BINARY_UNITS)[unit.lower()]
    return math.floor(float(number) * scale) if "." in number else int(number) * scale


def render_size(size: int) -> str:
    """`size` in the largest binary unit that divides it."""
    for name, unit in reversed(_BINARY_UNITS.items()):
        if size and size % unit == 0:
            return f"{size // unit}{name.capitalize()}B"
    return str(size)


def _inside(section: str, option: Option) -> Option:
    path = f"{section}.{option.path}"
    return Option(path, option.hint, option.optional, option.default, option.help, option.secret)


def _default(item: Field[object]) -> object:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def _without_none(hint: object) -> tuple[object, bool]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if len(members) != 1:
        raise TypeError(f"{hint} is a union; a setting has one type, and None at most")
    return members[0], True


def _field_docs(settings: type) -> dict[str, str]:
    """Field → the docstring below it, on one line. Empty where the source is not at hand."""
    try:
        source = textwrap.dedent(inspect.getsource(settings))
    except OSError:
        return {}
    body = typing.cast("ast.ClassDef", ast.parse(source).body[0]).body
    docs: dict[str, str] = {}
    for statement, below in itertools.pairwise(body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                docs[name] = " ".join(text.split())
            case _:
                pass
    return docs


def _parser(hint: object) -> Callable[[Raw], object]:
    if hint == Size:
        return _scalar(parse_size)
    if typing.get_origin(hint) is Literal:
        return _scalar(lambda text: _choice(text, typing.get_args(hint)))
    return _PARSERS[typing.get_origin(hint) or hint]


def _scalar(convert: Callable[[str], object]) -> Callable[[Raw], object]:
    def parse(raw: Raw) -> object:
        if not isinstance(raw, str):
            raise ValueError("is not a single value")
        return convert(raw)

    return parse


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("is not an integer") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number):
        raise ValueError("is not a finite number")
    return number


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def _choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"is not one of {', '.join(choices)}{closest(text, choices)}")
    return text


def _listed(raw: Raw) -> tuple[str, ...]:
    if isinstance(raw, str):
        return tuple(part for part in (piece.strip() for piece in raw.split(",")) if part)
    if raw is None or isinstance(raw, Mapping):
        raise ValueError("is not a list")
    return tuple(raw)


def _mapped(raw: Raw) -> Mapping[str, str]:
    if isinstance(raw, Mapping):
        return types.MappingProxyType(dict(raw))
    pairs: dict[str, str] = {}
    for item in _listed(raw):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise ValueError(f"holds {item!r}, which is not KEY=VALUE")
        if key in pairs:
            raise ValueError(f"names {key!r} twice")
        pairs[key] = value
    return types.MappingProxyType(pairs)


def _plain(raw: Raw) -> object:
    return dict(raw) if isinstance(raw, Mapping) else list(raw or ())


_PARSERS: dict[object, Callable[[Raw], object]] = {
    str: _scalar(str),
    int: _scalar(_integer),
    float: _scalar(_number),
    bool: _scalar(_boolean),
    Path: _scalar(lambda text: Path(text).expanduser()),
    tuple: _listed,
    _MAPPING: _mapped,
}
