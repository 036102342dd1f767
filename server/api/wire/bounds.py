"""Limits on the size of a body's fields, checked before a field is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.api.wire.counting import JsonCounts, count_at_most, count_values
from server.errors import bad_field

MAX_FIELDS = 256
"""Maximum number of fields in a JSON body. Every endpoint has fewer fields."""
UNCOUNTED = 4096
"""Values in fields of up to this many bytes are not counted, since decoding such a field takes 0.1 ms at
most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldBound:
    """Limits of one field of a JSON body. Decoding a field within these limits takes a few milliseconds."""

    size: int | None = None
    """Maximum size of the field's JSON in bytes; None: only the body's limit applies."""
    containers: int = 1024
    """Maximum number of objects and arrays in the field."""
    strings: int = 4096
    """Maximum number of strings in the field, including keys."""
    values: int = 8192

    def check(self, name: str, text: bytes) -> None:
        """Raise `ApiError` (400) if the field's JSON exceeds a limit. The error has the field's name, its
        count and the limit.
        """
        excess = self.excess(text)
        if excess is not None:
            shown = name[:100]
            raise bad_field(
                shown,
                f"The field {shown} has {excess[0]}; the maximum is {excess[1]}. Shorten the field.",
                code="field_too_large",
            )

    def excess(self, text: bytes) -> tuple[str, int] | None:
        """Return what the field's JSON `text` holds too much of (such as "at least 5000 strings"), and the
        limit; None if no limit is exceeded.
        """
        if self.size is not None and len(text) > self.size:
            return f"{len(text)} bytes of JSON", self.size
        if len(text) <= UNCOUNTED or self._exceeded(count_at_most(text)) is None:
            return None
        limits = JsonCounts(self.containers, self.strings, self.values, self.values)
        return self._exceeded(count_values(text, limits))

    def _exceeded(self, counts: JsonCounts) -> tuple[str, int] | None:
        if counts.containers > self.containers:
            return f"at least {counts.containers} objects and arrays", self.containers
        if counts.strings > self.strings:
            return f"at least {counts.strings} strings", self.strings
        if counts.values > self.values:
            return f"at least {counts.values} values", self.values
        return None


SMALL = FieldBound(size=16 * 1024)
"""Limits of a field that has no limits of its own."""
NO_BOUNDS: Mapping[str, FieldBound] = {}


def check_fields(body: bytes) -> None:
    """Raise `ApiError` (400) for a body of more than `MAX_FIELDS` fields."""
    if len(body) <= UNCOUNTED or count_at_most(body).members <= MAX_FIELDS:
        return
    anything = len(body)
    members = count_values(body, JsonCounts(anything, anything, anything, MAX_FIELDS)).members
    if members > MAX_FIELDS:
        raise bad_field(
            None,
            f"The request's body has at least {members} fields; the maximum is {MAX_FIELDS}. Send fewer.",
            code="field_too_large",
        )
