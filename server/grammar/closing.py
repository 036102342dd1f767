"""Changes a client's JSON schema so that its objects allow no additional properties, as schema libraries
intend.

Pydantic and libraries based on it never write `additionalProperties: false`. A model that may add properties
would go on until it runs out of tokens. Call `check_schema` before, since this code relies on its limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from server.grammar.keywords import (
    ANNOTATIONS,
    SCHEMA_LISTS,
    SCHEMA_MAPS,
    SCHEMAS,
    count_schemas,
    is_servable_branch,
    values_of,
    with_named_properties,
    without_idle,
)
from server.grammar.text import GrammarRefusedError

_STEPS = 4
_SPARE_STEPS = 1_000
"""A schema may take this many steps of work, plus `_STEPS` for each object and array in it. A schema that
takes more is refused.
"""

_SAYS = ("additionalProperties", "patternProperties")
"""JSON Schema keywords with which a schema itself decides about additional properties."""
_CLOSABLE = frozenset({"properties", "unevaluatedProperties", "$ref", "allOf", "anyOf", "oneOf"})
"""JSON Schema keywords that contain properties or other schemas. A schema without any of them has no object
to close.
"""

PropertyNames: TypeAlias = tuple[str, ...]
SchemaObject: TypeAlias = Mapping[str, Any]


def close_objects(schema: SchemaObject) -> dict[str, Any]:
    """Return a copy of `schema` in which objects that have `properties` allow no additional ones, unless
    their schema itself decides about that, such as with `additionalProperties`.

    An object that is described by several parts (`allOf`, keywords beside `$ref`, `anyOf` beside
    `properties`) allows the properties of all parts. `{"type": "object"}` still allows any property. Keywords
    without effect are removed. Raises `GrammarRefusedError` if the schema has too many combinations.
    """
    return _Closing(schema).run()


@dataclass(slots=True)
class _Declared:
    """The properties that a schema and all schemas it combines declare for one object."""

    properties: bool = False
    """True if any of the combined schemas has `properties`."""
    names: dict[str, None] = field(default_factory=dict[str, None])
    required: dict[str, None] = field(default_factory=dict[str, None])
    says: bool = False
    """True if any of the combined schemas decides itself about additional properties."""
    unevaluated: bool = False
    """True if any of the combined schemas has `unevaluatedProperties`, which applies to the properties that
    none of them declares.
    """


def _definitions(schema: SchemaObject) -> Mapping[str, Any]:
    """Return the `$defs` of `schema`; empty if they are missing or not an object."""
    found = schema.get("$defs")
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


class _Closing:
    def __init__(self, root: SchemaObject) -> None:
        self._root = root
        self._steps = _SPARE_STEPS + _STEPS * count_schemas(root)
        dialect = root.get("$schema")
        self._ref_alone = isinstance(dialect, str) and "/draft-0" in dialect
        """True if the schema's draft is 7 or older: there, `$ref` makes all keywords beside it have no
        effect.
        """
        self._variants: dict[tuple[str, PropertyNames | None], str] = {}
        self._pending: deque[tuple[str, SchemaObject, PropertyNames | None]] = deque()

    def run(self) -> dict[str, Any]:
        closed = self._schema(self._root, ())
        made: dict[str, Any] = {}
        while self._pending:
            name, target, names = self._pending.popleft()
            made[name] = self._schema(target, names)
        if made:
            closed["$defs"] = {**_definitions(closed), **made}
        return closed

    def _schema(self, schema: SchemaObject, names: PropertyNames | None) -> dict[str, Any]:
        """Return a copy of `schema` whose objects allow only their own properties and those in `names`. None:
        they allow all properties.
        """
        self._spend()
        schema = without_idle(schema)
        if isinstance(schema.get("propertyNames"), Mapping):
            schema = with_named_properties(schema, self._resolved(schema["propertyNames"]))
        if not names and schema.keys().isdisjoint(_CLOSABLE):
            return {key: self._keyword(key, value, None) for key, value in schema.items()}
        if "$ref" in schema and (self._ref_alone or schema.keys() - ANNOTATIONS == {"$ref"}):
            kept = {key: self._keyword(key, value, None) for key, value in schema.items() if key != "$ref"}
            return kept | {"$ref": self._ref(schema["$ref"], names)}
        if (inner := _single(schema)) is not None:
            return self._schema(inner, names)
        total, within = self._closure(schema, names)
        copy = {key: self._keyword(key, value, within) for key, value in schema.items()}
        if total is not None:
            self._close(copy, total)
        elif within is not None or copy.get("unevaluatedProperties") in (True, {}):
            copy.pop("unevaluatedProperties", None)
        if "oneOf" in copy and "anyOf" not in copy and self._is_disjoint(schema["oneOf"]):
            copy["anyOf"] = copy.pop("oneOf")
        return copy

    def _closure(
        self, schema: SchemaObject, names: PropertyNames | None
    ) -> tuple[PropertyNames | None, PropertyNames | None]:
        """Return the property names that an object of this schema allows, and those that each branch of its
        `anyOf` or `oneOf` allows. None: all names.
        """
        parts = self._declared(schema)
        if names is None or parts.says or not _may_be_object(schema):
            return None, None
        required = () if parts.unevaluated else parts.required  # what no part declares is then forbidden
        total = tuple(dict.fromkeys((*names, *parts.names, *required)))
        least = schema.get("minProperties", 0)
        unions = [key for key in ("anyOf", "oneOf") if self._declares(schema.get(key))]
        declared = parts.properties or parts.unevaluated or bool(names)
        if len(unions) == 1:
            return None, total if declared else ()
        if unions:
            total = tuple(dict.fromkeys((*total, *self._names_within(schema, unions))))
        if not declared:
            return None, ()
        return (None, None) if isinstance(least, int) and len(total) < least else (total, None)

    def _close(self, copy: dict[str, Any], names: PropertyNames) -> None:
        copy.pop("unevaluatedProperties", None)
        self._spend(len(names))
        copy["properties"] = copy.get("properties", {}) | {
            name: {} for name in names if name not in copy.get("properties", {})
        }
        copy["additionalProperties"] = False

    def _keyword(self, key: str, value: Any, within: PropertyNames | None) -> Any:
        if key in SCHEMAS and isinstance(value, Mapping):
            return self._schema(cast("SchemaObject", value), ())
        if key in SCHEMA_MAPS and isinstance(value, Mapping):
            inside = cast("Mapping[str, Any]", value)
            return {name: self._inner(item, ()) for name, item in inside.items()}
        if key == "$ref":
            return self._ref(value, None)
        if key in SCHEMA_LISTS and isinstance(value, list | tuple):
            items = cast("Sequence[Any]", value)
            if key == "anyOf":
                items = [item for item in items if is_servable_branch(item)] or items
            place: PropertyNames | None = () if key in ("items", "prefixItems") else None
            place = within if key in ("anyOf", "oneOf") else place
            return [self._inner(item, place) for item in items]
        return value

    def _inner(self, value: Any, names: PropertyNames | None) -> Any:
        return self._schema(cast("SchemaObject", value), names) if isinstance(value, Mapping) else value

    def _ref(self, ref: Any, names: PropertyNames | None) -> Any:
        """Return a `$ref` to a copy of the referenced schema that allows only the properties in `names`;
        None: all properties.
        """
        if names == () or not isinstance(ref, str) or (target := self._find(ref)) is None:
            return ref
        key = (ref, names)
        if key not in self._variants:
            taken = _definitions(self._root)
            name = f"{len(self._variants)}"
            while name in taken:
                name += "_"
            self._variants[key] = f"#/$defs/{name}"
            own = {key: value for key, value in target.items() if key not in ("$defs", "definitions")}
            self._pending.append((name, own, names))
        return self._variants[key]

    def _declared(self, schema: SchemaObject) -> _Declared:
        """Return the properties that `schema` declares, including those that `allOf` and `$ref` add."""
        found = _Declared()
        for part in self._parts(schema, ("allOf",)):
            rest = part.get("unevaluatedProperties", False)
            found.says = found.says or rest is not False or any(key in part for key in _SAYS)
            found.unevaluated = found.unevaluated or "unevaluatedProperties" in part
            if isinstance(part.get("properties"), Mapping):
                found.properties = True
                found.names |= dict.fromkeys(part["properties"])
                self._spend(len(part["properties"]))
            found.required |= dict.fromkeys(_texts(part.get("required")))
        return found

    def _declares(self, branches: object) -> bool:
        """Return True if any branch of an `anyOf` or `oneOf` has `properties`."""
        return any("properties" in part for part in self._branches(branches))

    def _names_within(self, schema: SchemaObject, groups: Iterable[str]) -> PropertyNames:
        names: dict[str, None] = {}
        for group in groups:
            for part in self._branches(schema[group]):
                if isinstance(part.get("properties"), Mapping):
                    names |= dict.fromkeys(part["properties"])
        return tuple(names)

    def _branches(self, branches: object) -> Iterable[SchemaObject]:
        listed = cast("Sequence[object]", branches) if isinstance(branches, list | tuple) else ()
        for branch in listed:
            if isinstance(branch, Mapping):
                yield from self._parts(cast("SchemaObject", branch), ("allOf", "anyOf", "oneOf"))

    def _parts(self, schema: SchemaObject, keys: Sequence[str]) -> Iterable[SchemaObject]:
        """Yield `schema` and all schemas that it contains under `keys` or refers to by `$ref`, each once."""
        pending, seen = deque([schema]), set[str]()
        while pending:
            part = pending.popleft()
            self._spend(1 + len(part) // 8)
            yield without_idle(part)
            for key in keys:
                listed = part.get(key)
                if isinstance(listed, list | tuple):
                    inside = cast("Sequence[object]", listed)
                    pending += [cast("SchemaObject", item) for item in inside if isinstance(item, Mapping)]
            ref = part.get("$ref")
            if isinstance(ref, str) and ref not in seen and (target := self._find(ref)) is not None:
                seen.add(ref)
                pending.append(target)

    def _find(self, ref: str) -> SchemaObject | None:
        """Return the schema that the JSON pointer `ref` names; None if there is no such schema or it is true
        or false.
        """
        if ref != "#" and not ref.startswith("#/"):
            return None
        place: Any = self._root
        for step in ref.split("/")[1:]:
            self._spend()
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, Mapping):
                place = cast("Mapping[str, Any]", place).get(key)
            elif isinstance(place, list) and key.isascii() and key.isdigit() and len(key) < 6:
                items = cast("list[Any]", place)
                place = items[int(key)] if int(key) < len(items) else None
            else:
                return None
        return cast("SchemaObject", place) if isinstance(place, Mapping) else None

    def _resolved(self, schema: SchemaObject) -> SchemaObject:
        """Return the schema that `schema` refers to if it is only a `$ref`, else `schema` itself."""
        ref = schema.get("$ref")
        target = self._find(ref) if isinstance(ref, str) and len(schema) == 1 else None
        return without_idle(schema if target is None else target)

    def _is_disjoint(self, branches: Sequence[Any]) -> bool:
        """Return True if a required property has different values in all branches, so that a value matches at
        most one branch.
        """
        tables = [self._tags(branch) for branch in branches]
        for name in tables[0] if len(tables) > 1 else ():
            values = [table.get(name) for table in tables]
            known = [value for value in values if value is not None]
            if len(known) == len(tables) and len(set().union(*known)) == sum(map(len, known)):
                return True
        return False

    def _tags(self, branch: Any) -> dict[str, frozenset[str]]:
        """Map each required property of a branch that has `const` or `enum` to its allowed values, written as
        JSON.
        """
        found: dict[str, frozenset[str]] = {}
        if not isinstance(branch, Mapping):
            return found
        parts = list(self._parts(cast("SchemaObject", branch), ("allOf",)))
        if not any(part.get("type") == "object" for part in parts):
            return found
        required = {name for part in parts for name in _texts(part.get("required"))}
        for part in parts:
            if isinstance(part.get("properties"), Mapping):
                found |= {name: values_of(part["properties"].get(name)) for name in required}
        return {name: values for name, values in found.items() if values}

    def _spend(self, steps: int = 1) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise GrammarRefusedError(
                "the schema combines too many schemas (by allOf, anyOf, oneOf or $ref); simplify it"
            )


def _single(schema: SchemaObject) -> SchemaObject | None:
    """Return the only schema in an `allOf`; None if `schema` is anything else. Older versions of pydantic
    write a `$ref` with a description in this way.
    """
    if schema.keys() - ANNOTATIONS != {"allOf"} or "$defs" in schema or "definitions" in schema:
        return None
    parts: object = schema["allOf"]
    if isinstance(parts, list | tuple) and len(cast("Sequence[object]", parts)) == 1:
        part: object = parts[0]
        return cast("SchemaObject", part) if isinstance(part, Mapping) else None
    return None


def _may_be_object(schema: SchemaObject) -> bool:
    if "const" in schema or "enum" in schema:
        return False
    kind = schema.get("type", "object")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def _texts(value: object) -> list[str]:
    listed = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    return [item for item in listed if isinstance(item, str)]
