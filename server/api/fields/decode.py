"""Convert a JSON object to a struct of `server.api.fields`, or raise an error that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from server.api.fields.generation import known
from server.api.fields.refusals import HINTS, REFUSED, Refusal
from server.api.fields.shapes import choices_at, fit
from server.api.fields.unknown import UnknownFields
from server.api.wire.bounds import SMALL
from server.errors import ApiError, bad_field

Fields = TypeVar("Fields", bound=msgspec.Struct)

_PATH = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<path>[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_STEP = re.compile(r"\.?(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]")

NO_NAMES: frozenset[str] = frozenset()
NOTHING_REFUSED: Mapping[str, Refusal] = {}


def to_fields(
    value: dict[str, Any],
    kind: type[Fields],
    *,
    hints: frozenset[str] = NO_NAMES,
    refused: Mapping[str, Refusal] = NOTHING_REFUSED,
    unknown: UnknownFields | None = None,
) -> Fields:
    """Convert `value` to the struct `kind`. A field that is null counts as absent. Fields in `hints` are
    accepted and dropped.

    A field that is in none of `kind`, `hints` and `refused` is passed to `unknown`, which refuses it by
    default. Raises `ApiError` (400) with the name of an invalid field.
    """
    honoured = known(kind)
    unknown = UnknownFields(strict=True) if unknown is None else unknown
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if item is None or name in hints:
            continue
        if name not in honoured:
            unknown.meet(name, honoured | hints | frozenset(refused))
            continue
        if isinstance(item, msgspec.Raw):  # more than its bound, and not decoded
            SMALL.check(name, item)
        kept[name] = item
    kept = fit(kept, kind, unknown)
    try:
        return msgspec.convert(kept, kind)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), kept, kind) from None


def to_generation(
    value: dict[str, Any],
    kind: type[Fields],
    *,
    refused: Mapping[str, Refusal] = REFUSED,
    hints: frozenset[str] = HINTS,
    unknown: UnknownFields | None = None,
) -> Fields:
    """Convert `value` to the struct `kind` as `to_fields` does, and refuse the fields in `refused` unless
    their values have no effect.
    """
    honoured = known(kind)
    kept = dict(value)
    for name, item in value.items():
        refusal = refused.get(name)
        if refusal is None or name in honoured:
            continue
        if item is not None and not _asks_nothing(name, item, value, refusal):
            raise refusal.error(name)
        del kept[name]
    return to_fields(kept, kind, hints=hints, refused=refused, unknown=unknown)


def _asks_nothing(name: str, item: object, value: Mapping[str, object], refusal: Refusal) -> bool:
    if name == "best_of" and type(item) is int and item == value.get("n", 1):
        return True
    if name in ("tools", "functions") and "none" in (value.get("tool_choice"), value.get("function_call")):
        return True
    return refusal.allows(item)


def _misfit(message: str, value: object, kind: type[msgspec.Struct]) -> ApiError:
    at = _PATH.search(message)
    path = at["path"].removesuffix("[...]") if at else ""
    missing = _MISSING.match(message)
    if missing:
        name = f"{path}.{missing['name']}".lstrip(".")
        return bad_field(name, f"{name} is required.", code="missing_required_parameter")
    detail = _PATH.sub("", message).replace("`", "")
    detail = detail[:1].lower() + detail[1:]
    if message.startswith("Invalid ") and (allowed := choices_at(kind, path)):
        detail = f"expected {'one of ' * (len(allowed) > 1)}{', '.join(allowed)}"
    if at and (at["key"] or at["path"].endswith("[...]")):  # msgspec does not say which
        wrong = f"has a {'key' if at['key'] else 'value'} that is not valid"
    else:
        wrong = f"is {format_json(_at(value, path))}"
    return bad_field(path, f"{path} {wrong}: {detail}.", code="invalid_value")


def _at(value: Any, path: str) -> object:
    for step in _STEP.finditer(path):
        key = step["key"] if step["key"] is not None else int(step["index"])
        try:
            value = value[key]
        except (LookupError, TypeError):
            return value
    return value


def format_json(value: object) -> str:
    """Return `value` as JSON, shortened for an error message."""
    if isinstance(value, float) and not math.isfinite(value):
        return "too large"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "too large"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"an array of {len(value)}"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
