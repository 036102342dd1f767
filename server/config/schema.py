"""Options as a settings class declares them: their names on every surface, their help, and text to value.

Reads types, defaults and docstrings off frozen dataclasses; knows no particular setting.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Literal

from server.config.values import (
    MAPPING,
    Raw,
    SettingsError,
    Size,
    Tables,
    format_raw,
    parse_value,
    render_size,
)

SECRET = {"secret": True}
"""Field metadata of a value that is never shown."""

_METAVARS: dict[object, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


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
    def explained(self) -> str:
        """The help, with the choices where they are few and named."""
        return self.help + (f" One of {', '.join(self.choices)}." if self.choices else "")

    @property
    def metavar(self) -> str:
        """What stands for its value in the help."""
        if self.hint == Size:
            return "SIZE"
        if self.hint == Tables:
            return "JSON"
        if typing.get_origin(self.hint) is MAPPING:
            return "KEY=VALUE"
        return _METAVARS.get(self.hint, "TEXT")

    @property
    def many(self) -> bool:
        """Whether it takes several values."""
        return typing.get_origin(self.hint) in (tuple, MAPPING)

    def parse(self, raw: Raw, origin: str) -> object:
        """The value that `raw` stands for. Raises `SettingsError` naming setting, value and remedy."""
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "none")):
            if self.optional:
                return None
            if raw is None or not raw.strip():
                raise SettingsError(self.name, "has no value; give one or leave it out", origin)
        try:
            return parse_value(self.hint, raw)
        except ValueError as error:
            found = "the value given" if self.secret else format_raw(raw)
            raise SettingsError(self.name, f"{found} {error}", origin) from None

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
        if isinstance(value, float):
            return f"{value:g}"
        if self.hint == Tables and isinstance(value, Mapping):
            return ", ".join(typing.cast("Mapping[str, str]", value)) or "none"
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
