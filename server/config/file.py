"""Read `oneseek.yaml` into unparsed values, each with its line number. Independent of any particular
setting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from server.config.schema import Option
from server.config.values import Entries, Located, Raw, SettingsError, Tables, closest

MAX_BYTES = 256 * 1024
"""Maximum size of a settings file in bytes. A larger file is refused, since it is surely a mistake."""


@dataclass(frozen=True, slots=True)
class FileValue:
    """One value of the settings file."""

    raw: Raw | Entries
    origin: str
    """File name and line, such as `oneseek.yaml:3`."""


def read_file(path: Path, options: tuple[Option, ...]) -> dict[str, FileValue]:
    """Return the values in the file by option path. Raises `SettingsError` for an unknown or repeated key or
    invalid YAML.

    Scalars keep their text from the file: the language code `no` is not read as false, and each value gets
    the same checks as a flag's.
    """
    reader = _Reader(path.name, options)
    return reader.read(_document(path))


def read_entries(text: str, option: Option, origin: str, name: str | None = None) -> Entries:
    """Parse named sections from `text`, a YAML mapping of sections. If `name` is given, `text` is that one
    section.

    Raises the errors of `read_file`.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        raise SettingsError(option.name, f"{text!r} is not valid YAML; correct the value", origin) from None
    assert node is not None
    reader = _Reader(origin, (), lines=False)
    if name is not None:
        return Entries({name: reader.section(option, name, node)})
    return reader.entries(option, node)


def _document(path: Path) -> yaml.Node | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            str(path), f"cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    if len(content) > MAX_BYTES:
        raise SettingsError(
            str(path), f"has {len(content)} bytes, but a settings file at most {MAX_BYTES}; check the path"
        )
    try:
        return yaml.compose(content.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise SettingsError(str(path), "is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f"{path.name}:{error.problem_mark.line + 1}" if error.problem_mark else path.name
        raise SettingsError(
            path.name, f"is not valid YAML: {error.problem}; correct the line", line
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(str(path), f"is not valid YAML: {error}; correct the file") from None


class _Reader:
    """Reads parsed YAML into values. `name` is the option path of the section that is read. `lines`: report
    line numbers.
    """

    def __init__(self, file: str, options: tuple[Option, ...], name: str = "", *, lines: bool = True) -> None:
        self._file = file
        self._name = f"{name}." if name else ""
        self._lines = lines
        self._options = {option.path: option for option in options}
        self._sections = {option.path.partition(".")[0] for option in options if "." in option.path}

    def read(self, document: yaml.Node | None) -> dict[str, FileValue]:
        values: dict[str, FileValue] = {}
        if document is None or self._is_null(document):
            return values
        for key, node in self._pairs(document, self._name.rstrip(".") or "the file"):
            option = self._options.get(key)
            if option is not None and option.inner:
                values[key] = FileValue(self.entries(option, node), self._line(node))
            elif key not in self._sections:
                values[key] = self._value(key, node)
            elif isinstance(node, yaml.ScalarNode) and f"{key}.kind" in self._options:
                values[f"{key}.kind"] = self._value(f"{key}.kind", node)
            elif not self._is_null(node):
                values |= self._section(key, node)
        return values

    def entries(self, option: Option, node: yaml.Node) -> Entries:
        """Parse a mapping from names to sections, such as the bases."""
        name = option.path
        if self._is_null(node):
            return Entries({})
        return Entries({key: self.section(option, key, item) for key, item in self._pairs(node, name)})

    def section(self, option: Option, key: str, node: yaml.Node) -> dict[str, Located]:
        """Parse one named section. A plain value instead of a mapping is the section's `path`."""
        if isinstance(node, yaml.ScalarNode) and not self._is_null(node):
            return {"path": Located(node.value, self._line(node))}
        reader = _Reader(self._file, option.inner, f"{option.path}.{key}", lines=self._lines)
        values = reader.read(node).items()
        return {
            path: Located(one.raw, one.origin) for path, one in values if not isinstance(one.raw, Entries)
        }

    def _section(self, key: str, node: yaml.Node) -> dict[str, FileValue]:
        """Return the values of one section. If the section has a setting `options`, unknown keys are
        collected there.
        """
        values: dict[str, FileValue] = {}
        gathered: dict[str, str] = {}
        for inner, item in self._pairs(node, key):
            path = f"{key}.{inner}"
            if path in self._options or f"{key}.options" not in self._options:
                values[path] = self._value(path, item)
            else:
                gathered[inner] = self._json(path, item)
        if gathered:
            if f"{key}.options" in values:
                raise SettingsError(
                    f"{key}.options",
                    f"options cannot be combined with {', '.join(gathered)} in one section; move all into "
                    "options",
                    self._line(node),
                )
            values[f"{key}.options"] = FileValue(gathered, self._line(node))
        return values

    def _json(self, path: str, node: yaml.Node) -> str:
        """Return a YAML value as JSON text, which is also valid YAML."""
        try:
            return json.dumps(yaml.SafeLoader("").construct_document(node))  # pyright: ignore[reportUnknownArgumentType] # any YAML value
        except (TypeError, ValueError, yaml.YAMLError):
            raise SettingsError(
                path,
                "holds a value that is not text, a number, a list or a mapping; replace the value",
                self._line(node),
            ) from None

    def _value(self, path: str, node: yaml.Node) -> FileValue:
        if path not in self._options:
            known = [*self._options, *self._sections]
            raise SettingsError(
                self._name + path, f"is not a setting of OneSeek{closest(path, known)}", self._line(node)
            )
        return FileValue(self._raw(self._name + path, node), self._line(node))

    def _raw(self, path: str, node: yaml.Node) -> Raw:
        match node:
            case yaml.SequenceNode():
                return [self._text(path, item) for item in node.value]
            case yaml.MappingNode() if self._options[path].hint == Tables:
                return {key: self._json(f"{path}.{key}", item) for key, item in self._pairs(node, path)}
            case yaml.MappingNode():
                return {key: self._text(f"{path}.{key}", item) for key, item in self._pairs(node, path)}
            case _:
                return None if self._is_null(node) else self._text(path, node)

    def _pairs(self, node: yaml.Node, name: str) -> Iterator[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError(name, "is not a mapping; write `key: value` lines", self._line(node))
        seen: dict[str, str] = {}
        for key_node, value_node in node.value:
            key = self._text(name, key_node)
            if key in seen:
                raise SettingsError(
                    key, f"is set twice, first at {seen[key]}; remove one of the two", self._line(key_node)
                )
            seen[key] = self._line(key_node)
            yield key, value_node

    def _text(self, name: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise SettingsError(name, "holds a list or mapping; give a single value", self._line(node))
        return node.value

    def _is_null(self, node: yaml.Node) -> bool:
        return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"

    def _line(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}" if self._lines else self._file
