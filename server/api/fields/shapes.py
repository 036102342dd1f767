"""Adapts JSON from clients to the fields of a struct, before msgspec converts the JSON.

In the API's own fields, null means absent. Data within schemas, parameters, arguments, metadata and messages
is not changed; messages have their own parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import inspect as kinds

from server.api.fields.unknown import UnknownFields, unknown_field


def fit(value: dict[str, Any], body: type[msgspec.Struct], unknown: UnknownFields) -> dict[str, Any]:
    """Return the fields of `value` that the struct `body` has, including those of nested objects.

    An unknown field is passed to `unknown`, which ignores it or raises `ApiError`. If the struct's `FORBIDS`
    is true, every unknown field is refused. A float such as 3.0 is accepted as an integer.
    """
    return _struct(value, body, "", unknown)


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


@lru_cache(maxsize=128)
def _names(body: type[msgspec.Struct]) -> frozenset[str]:
    members, tag = _members(body)
    return frozenset(members) | ({tag} if tag else frozenset())
