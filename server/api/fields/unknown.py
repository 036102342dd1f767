"""Handles unknown fields of a request: likely typos are refused, other names are listed in a
response header.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping

from server.api.fields.nearness import may_be_near, nearest
from server.api.wire.bounds import MAX_FIELDS
from server.errors import ApiError, bad_field

IGNORED_HEADER = "X-OneSeek-Ignored"
MAX_NAMED = 20
"""Maximum number of field names in the header `X-OneSeek-Ignored`."""
MAX_COMPARED = 64
"""Maximum number of unknown field names to compare with known names; each comparison takes up to 0.2 ms."""
MAX_NAME = 100
"""Maximum length of a field name in the header `X-OneSeek-Ignored`, including the field's path."""

_INDEX = re.compile(r"\[[0-9]+\]")
_NO_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
"""Matches a character that RFC 9110 does not allow in a token of an HTTP header."""


class UnknownFields:
    """Ignores or refuses the unknown fields of one request.

    `receipt` holds the answer's headers, which will list the ignored names. With `strict`, every unknown
    field is refused.
    """

    def __init__(self, receipt: MutableMapping[str, str] | None = None, *, strict: bool = False) -> None:
        self._receipt = {} if receipt is None else receipt
        self._strict = strict
        self._met: set[tuple[str, str]] = set()
        self._compared = 0
        self._named: dict[str, None] = {}

    def meet(self, name: str, known: frozenset[str], path: str = "") -> None:
        """Ignore the unknown field `name` of the object at `path`, whose known fields are `known`.

        Raises `ApiError` (400) if the name is close to a known name, if `strict` is set, or if the request
        has too many unknown fields.
        """
        if self._strict:
            raise unknown_field(name, known, f"{path}." if path else "")
        place = _INDEX.sub("", path)
        if (place, name) in self._met:
            return
        self._compared += may_be_near(name, known)
        if len(self._met) >= MAX_FIELDS or self._compared > MAX_COMPARED:
            raise bad_field(
                path or None,
                f"The request has at least {len(self._met) + 1} unknown fields, too many; remove them.",
                code="field_too_large",
            )
        if nearest(name, known, cautious=bool(path)) is not None:
            raise unknown_field(name, known, f"{path}." if path else "")
        self._met.add((place, name))
        self._tell(f"{place}.{name[:MAX_NAME]}" if place else name[:MAX_NAME])

    def _tell(self, name: str) -> None:
        if len(self._named) < MAX_NAMED:
            self._named[_NO_TOKEN.sub("_", name)[:MAX_NAME] or "_"] = None
            self._receipt[IGNORED_HEADER] = ", ".join(self._named)


def unknown_field(name: str, names: frozenset[str], prefix: str = "") -> ApiError:
    """Return the error (400) for an unknown field, with the closest known name as a hint."""
    shown = name[:100]
    near = nearest(name, names, cautious=bool(prefix))
    hint = f" Did you mean {near!r}?" if near else ""
    message = f"{prefix}{shown} is not a field of this endpoint.{hint}"
    return bad_field(prefix + shown, message, code="unknown_parameter")
