"""Reads the adapter's name from fields of other servers: SGLang's `lora_path` and LoRAX's `adapter_id`. Paths
and URLs are refused.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

import msgspec

from routing.route import UnknownNameError
from routing.selection import BASE, MAX_LENGTH, first_name, is_automatic, split_base
from server.api.wire.bounds import SMALL
from server.errors import ApiError, bad_field

SPELLINGS = ("lora_path", "adapter_id")
_PATH = re.compile(r"[/.~\\]|.*://|.*[/\\]\.\.?(?:[/\\]|\Z)|[A-Za-z]:\\|.*\.safetensors\Z", re.DOTALL)
"""Matches a value that is a path or a URL instead of a name."""


class KnownNames(Protocol):
    """Interface that tells which names of bases and adapters the server knows."""

    def knows(self, name: str) -> bool:
        """Return True if `name` is the name of a base or an adapter."""
        ...

    def is_base(self, name: str) -> bool:
        """Return True if `name` is the name of a base, or the word `base`."""
        ...

    def full_name(self, name: str) -> str:
        """Return the full, canonical spelling of an adapter's name."""
        ...


def name_adapter(value: dict[str, Any], known: KnownNames) -> dict[str, Any]:
    """Return `value` with `model` set to the adapter that `model`, `lora_path` or `adapter_id` names.

    A base in `model` and an adapter in another field, as in SGLang, become `base:adapter`. Raises `ApiError`
    (400) for a path, an invalid name or contradictory fields, and `UnknownNameError` for a name that is not
    in `known`.
    """
    spelt = [(field, value[field]) for field in SPELLINGS if value.get(field) is not None]
    if not spelt:
        return value
    rest = {field: item for field, item in value.items() if field not in SPELLINGS}
    names = [(field, name) for field, item in spelt if (name := _name(item, field)) is not None]
    if not names:  # SGLang's lists hold null for the base
        return rest
    field, name = names[0]
    for other, asked in names[1:]:
        if known.full_name(asked) != known.full_name(name):
            raise _contradiction(other, asked, field, name)
    if not known.knows(first_name(name)):
        raise UnknownNameError(name, field)
    model = value.get("model")
    if model is None or (isinstance(model, str) and is_automatic(model)):
        return rest | {"model": name}
    if not isinstance(model, str):
        return rest
    if known.is_base(model):
        bare = split_base(name)[0] is None and "=" not in name and model.strip().lower() != BASE
        return rest | {"model": f"{model.strip()}:{name}" if bare else name}
    if known.knows(first_name(model)) and known.full_name(model) != known.full_name(name):
        raise _contradiction(field, name, "model", model)
    return rest


def _name(item: object, field: str) -> str | None:
    """Return the only name in a text or a list of texts; None for a list of nulls. Raises `ApiError` for
    several names.
    """
    if isinstance(item, msgspec.Raw):  # more than its bound, and not decoded
        SMALL.check(field, item)
    if not isinstance(item, str | list):
        raise bad_field(
            field,
            f"{field} must be the name of an adapter, or a list with one such name.",
            code="invalid_type",
        )
    if isinstance(item, str):
        return _checked(item, field)
    names = cast("list[object]", item)
    found: list[str | None] = []
    for index, name in enumerate(names):
        path = f"{field}[{index}]"
        if name is not None and not isinstance(name, str):
            raise bad_field(path, f"{path} must be an adapter's name or null.", code="invalid_type")
        found.append(None if name is None else _checked(name, path))
    chosen = {None if name is None else name.lower() for name in found}
    if len(chosen) > 1:
        raise bad_field(
            field,
            f"{field} names several adapters; send a separate request for each adapter.",
            code="unsupported_value",
        )
    return found[0] if found else None


def _checked(name: str, field: str) -> str:
    text = name.strip()
    if not 0 < len(text) <= MAX_LENGTH:
        raise bad_field(
            field, f"{field} must be an adapter's name of 1 to {MAX_LENGTH} characters.", code="invalid_value"
        )
    if _PATH.match(text):
        raise bad_field(
            field,
            f"{field} is the path {text[:60]!r}; send the name of an adapter that GET /v1/models lists.",
            code="invalid_value",
        )
    return text


def _contradiction(field: str, name: str, other: str, named: str) -> ApiError:
    message = (
        f"{field} is {name[:60]!r}, but {other} is {named[:60]!r}, another adapter; "
        f"send only one of the two fields."
    )
    return bad_field(field, message, code="invalid_value")
