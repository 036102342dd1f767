"""Adapts JSON from clients to the fields of a struct, before msgspec converts the JSON.

In the API's own fields, null means absent. Data within schemas, parameters, arguments, metadata and messages
is not changed; messages have their own parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import inspect as kinds

from server.api.fields.refusals import Refusal
from server.api.fields.unknown import UnknownFields, unknown_field

_INDEX = re.compile(r"\[[0-9]+\]")


def fit(value: dict[str, Any], body: type[msgspec.Struct], unknown: UnknownFields) -> dict[str, Any]:
    """Return the fields of `value` that the struct `body` has, including those of nested objects.

    An unknown field is passed to `unknown`, which ignores it or raises `ApiError`. If the struct's `FORBIDS`
    is true, every unknown field is refused. A field in a nested struct's `REFUSED` is refused unless its
    value is harmless. A float such as 3.0 is accepted as an integer.
    """
    return _struct(value, body, "", unknown)


def choices_at(body: type[msgspec.Struct], path: str) -> list[str]:
    """Return what the struct `body` accepts for the field at `path`, such as `tools[0].type`: its texts, and
    `an object` if it may be one. Empty if the field is not limited to some texts.
    """
    structs = [cast("kinds.StructType", kinds.type_info(body))]
    choices: Sequence[kinds.Type] = ()
    for step in _INDEX.sub("", path).split("."):
        tags = [str(one.tag) for one in structs if one.tag_field == step]
        if tags:
            return tags
        fields = [field.type for one in structs for field in one.fields if field.encode_name == step]
        choices = [choice for kind in fields for choice in _alternatives(kind)]
        structs = [one for one in choices if isinstance(one, kinds.StructType)]
    texts = [str(value) for one in choices if isinstance(one, kinds.LiteralType) for value in one.values]
    return [*texts, "an object"] if texts and structs else texts


def _alternatives(kind: kinds.Type) -> Iterable[kinds.Type]:
    """Yield the types that a value of the type `kind` can have; for lists, those that an item can have."""
    for one in kind.types if isinstance(kind, kinds.UnionType) else (kind,):
        yield from _alternatives(one.item_type) if isinstance(one, kinds.ListType) else (one,)


def _struct(
    value: Mapping[str, Any], body: type[msgspec.Struct], path: str, unknown: UnknownFields
) -> dict[str, Any]:
    members, tag = _members(body)
    kept: dict[str, Any] = {}
    for name, item in value.items():
        kind = members.get(name)
        if kind is not None:
            if item is not None:
                kept[name] = _fit(item, kind, f"{path}.{name}" if path else name, unknown)
        elif name == tag:
            kept[name] = item
        elif item is not None and (refusal := _refusals(body).get(name)) is not None:
            if not refusal.allows(item):
                raise refusal.error(f"{path}.{name}")
        elif item is not None and getattr(body, "FORBIDS", False):
            raise unknown_field(name, _names(body), f"{path}.")
        elif item is not None:
            unknown.meet(name, _names(body), path)
    return kept


def _fit(value: Any, kind: kinds.Type, path: str, unknown: UnknownFields) -> Any:
    choices = kind.types if isinstance(kind, kinds.UnionType) else (kind,)
    match value:
        case float() if value.is_integer() and _takes_integers(choices):
            return int(value)
        case dict():
            fields = cast("dict[str, Any]", value)
            body = _struct_for(fields, choices)
            return value if body is None else _struct(fields, body, path, unknown)
        case list():
            items = cast("list[Any]", value)
            inner = next((one.item_type for one in choices if isinstance(one, kinds.ListType)), None)
            return value if inner is None else _items(items, inner, path, unknown)
        case _:
            return value


def _items(items: list[Any], kind: kinds.Type, path: str, unknown: UnknownFields) -> list[Any]:
    if not {float, dict, list}.intersection(map(type, items)):
        return items  # such as many token ids
    return [_fit(item, kind, f"{path}[{index}]", unknown) for index, item in enumerate(items)]


def _takes_integers(choices: Sequence[kinds.Type]) -> bool:
    found = {type(one) for one in choices}
    return kinds.IntType in found and kinds.FloatType not in found


def _struct_for(value: Mapping[str, Any], choices: Iterable[kinds.Type]) -> type[msgspec.Struct] | None:
    """Return the struct for the object `value`. If `choices` holds several structs, it is the one with the
    object's tag.
    """
    structs = [one for one in choices if isinstance(one, kinds.StructType)]
    for one in structs:
        if one.tag_field is None or value.get(one.tag_field) == one.tag:
            return one.cls
    return None


@lru_cache(maxsize=128)
def _members(body: type[msgspec.Struct]) -> tuple[Mapping[str, kinds.Type], str | None]:
    """Return the fields of the struct `body` with their types, and the name of its tag field."""
    about = cast("kinds.StructType", kinds.type_info(body))
    return {one.encode_name: one.type for one in about.fields}, about.tag_field


def _refusals(body: type[msgspec.Struct]) -> Mapping[str, Refusal]:
    return getattr(body, "REFUSED", {})


@lru_cache(maxsize=128)
def _names(body: type[msgspec.Struct]) -> frozenset[str]:
    members, tag = _members(body)
    return frozenset(members) | ({tag} if tag else frozenset())
