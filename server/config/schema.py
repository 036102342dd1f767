"""Turn a settings class into options: their names as flag, variable and key, their help and their parser.

Reads types, defaults and docstrings from frozen dataclasses. Independent of any particular setting.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Literal

from server.config.values import (
    MAPPING,
    Entries,
    Located,
    Raw,
    SettingsError,
    Size,
    Tables,
    format_raw,
    parse_value,
    render_size,
)

SECRET = {"secret": True}
"""Metadata for a settings field that marks a secret, which is never shown."""

_METAVARS: dict[object, str] = {int: "NUMBER", float: "NUMBER", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Option:
    """Description of one setting, from which its flag, environment variable, key in the file and help are
    made.
    """

    path: str
    """Path of the setting's value in the settings, such as `port` or `routing.threshold`."""
    hint: object
    """The setting's type, without `None`."""
    optional: bool
    """True if the setting may be `None`."""
    default: object
    help: str
    secret: bool
    inner: tuple[Option, ...] = ()
    """For a setting that holds named sections, such as `bases`: the options of one section. Otherwise
    empty.
    """
    kind: type | None = None
    """For a setting that holds named sections: the settings class of one section."""
    single: str | None = None
    """For a setting that holds named sections: the name of the flag that adds one section. Default: from the
    path.
    """

    @property
    def name(self) -> str:
        """The setting's public name: its path, or the section's name if the path ends in `.kind`."""
        return self.path.removesuffix(".kind")

    @property
    def identifier(self) -> str:
        """The setting's name as a Python identifier, such as `routing_threshold`."""
        return self.name.replace(".", "_")

    @property
    def flag(self) -> str:
        """The setting's flag, such as `--routing-threshold`."""
        return "--" + (self.single or self.identifier).replace("_", "-")

    def variable(self, prefix: str) -> str:
        """The setting's environment variable, such as `ONESEEK_ROUTING_THRESHOLD`."""
        return prefix + self.identifier.upper()

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values of a setting with a fixed set of values. Otherwise empty."""
        return typing.get_args(self.hint) if typing.get_origin(self.hint) is Literal else ()

    @property
    def explained(self) -> str:
        """The setting's help text, followed by its allowed values if it has a fixed set of values."""
        return self.help + (f" One of {', '.join(self.choices)}." if self.choices else "")

    @property
    def metavar(self) -> str:
        """Placeholder for the setting's value in the help, such as PATH."""
        if self.hint == Size:
            return "SIZE"
        if self.hint == Tables:
            return "JSON"
        if self.inner:
            return "NAME=PATH"
        if typing.get_origin(self.hint) is MAPPING:
            return "KEY=VALUE"
        return _METAVARS.get(self.hint, "TEXT")

    @property
    def many(self) -> bool:
        """True if the setting's flag can be given more than once."""
        return typing.get_origin(self.hint) in (tuple, MAPPING)

    def parse(self, raw: Raw | Entries, origin: str) -> object:
        """Parse the text `raw` as the setting's value. Raises `SettingsError` that names the setting, the
        value and the remedy.
        """
        if isinstance(raw, Entries):
            return {name: self._section(name, raw.by_name[name]) for name in raw.by_name}
        if raw is None or (isinstance(raw, str) and raw.strip().lower() in ("", "none")):
            if self.optional:
                return None
            if raw is None or not raw.strip():
                raise SettingsError(self.name, "has no value; give one, or leave the setting out", origin)
        try:
            return parse_value(self.hint, raw)
        except ValueError as error:
            found = "the value given" if self.secret else format_raw(raw)
            raise SettingsError(self.name, f"{found} {error}", origin) from None

    def _section(self, name: str, given: Mapping[str, Located]) -> object:
        values: dict[str, typing.Any] = {}
        for option in self.inner:
            if option.path in given:
                named = replace(option, path=f"{self.path}.{name}.{option.path}")
                values[option.path] = named.parse(given[option.path].raw, given[option.path].origin)
        assert self.kind is not None
        return build(self.kind, values)

    def _render_section(self, section: object) -> str:
        """Format the values of a section that differ from the defaults, in one line."""
        shown: list[str] = []
        for option in self.inner:
            value = section
            for part in option.path.split("."):
                value = getattr(value, part, None)
            if value not in (None, option.default):
                shown.append(f"{option.name}={option.render(value)}")
        return " ".join(shown)

    def render(self, value: object) -> str:
        """Format `value` as one line of text. For secrets, show only how many there are."""
        if value is None:
            return "none"
        if self.inner:
            sections = typing.cast("Mapping[str, object]", value).items()
            return "; ".join(f"{name}: {self._render_section(one)}" for name, one in sections) or "none"
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
    """Return every option of a settings class, in order, including those of its nested settings classes."""
    found: list[Option] = []
    hints = typing.get_type_hints(settings, include_extras=True)
    docs = _field_docs(settings)
    for item in fields(settings):
        hint, optional = _without_none(hints[item.name])
        if isinstance(hint, type) and is_dataclass(hint):
            found += (_inside(item.name, option) for option in options_of(hint))
            continue
        secret = bool(item.metadata.get("secret"))
        kind = _section_kind(hint)
        inner = options_of(kind) if kind is not None else ()
        single = item.metadata.get("single")
        doc = docs.get(item.name, "")
        found.append(Option(item.name, hint, optional, _default(item), doc, secret, inner, kind, single))
    return tuple(found)


def build(kind: type, values: Mapping[str, object]) -> typing.Any:
    """Make an instance of a settings class, with its nested settings classes, from `values` by option
    path.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    arguments = {path: value for path, value in values.items() if "." not in path}
    for section in {path.partition(".")[0] for path in values if "." in path}:
        inside = {
            path.partition(".")[2]: value for path, value in values.items() if path.startswith(f"{section}.")
        }
        arguments[section] = build(typing.cast("type", _without_none(hints[section])[0]), inside)
    return kind(**arguments)


def _section_kind(hint: object) -> type | None:
    """Return the settings class of one section if the type `hint` maps names to sections. None otherwise."""
    if typing.get_origin(hint) is not MAPPING:
        return None
    kind = typing.get_args(hint)[1]
    return kind if isinstance(kind, type) and is_dataclass(kind) else None


def _inside(section: str, option: Option) -> Option:
    return replace(option, path=f"{section}.{option.path}")


def _default(item: Field[object]) -> object:
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def _without_none(hint: object) -> tuple[object, bool]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    members = [member for member in typing.get_args(hint) if member is not type(None)]
    if len(members) != 1:
        raise TypeError(
            f"the type {hint} is a union; a setting must have a single type, or a single type and None"
        )
    return members[0], True


def _field_docs(settings: type) -> dict[str, str]:
    """Maps each field of a settings class to its docstring, on one line. Empty if the source code is not
    available.
    """
    docs: dict[str, str] = {}
    for statement, below in itertools.pairwise(_classes(settings.__module__).get(settings.__qualname__, [])):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                docs[name] = " ".join(text.split())
            case _:
                pass
    return docs


@functools.cache
def _classes(module: str) -> dict[str, list[ast.stmt]]:
    """Maps each class at the top level of a module to the statements in its body.

    The module is parsed as a whole: `inspect.getsource` tokenizes each class in Python, which would take a
    tenth of the time that `oneseek --help` may take.
    """
    try:
        source = inspect.getsource(sys.modules[module])
    except OSError:
        return {}
    return {node.name: node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
