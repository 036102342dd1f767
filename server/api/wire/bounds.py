"""How much one field of a body may hold, checked before the field is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server.api.wire.counting import JsonCounts, count_at_most, count_values
from server.errors import bad_field

MAX_FIELDS = 256
"""Fields of a body; every endpoint knows fewer."""
UNCOUNTED = 4096
"""Bytes of a field up to which its values are not counted: they are decoded in a tenth of a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldBound:
    """The most that a field may hold. Decoding what passes takes some milliseconds."""

    size: int | None = None
    """Bytes of JSON; None leaves it to the body's limit."""
    containers: int = 1024
    """Objects and arrays."""
    strings: int = 4096
    """Keys included."""
    values: int = 8192

    def check(self, name: str, text: bytes) -> None:
        """Raise `ApiError` (400) with the name of the field, what it holds, and how much it may."""
        excess = self.excess(text)
        if excess is not None:
            shown = name[:100]
            message = f"{shown} holds {excess[0]}; send at most {excess[1]}."
            raise bad_field(shown, message, code="field_too_large")

    def excess(self, text: bytes) -> tuple[str, int] | None:
        """What the JSON `text` of a field holds too much of, and how much it may hold."""
        if self.size is not None and len(text) > self.size:
            return f"{len(text)} bytes of JSON", self.size
        if len(text) <= UNCOUNTED or self._exceeded(count_at_most(text)) is None:
            return None
        limits = JsonCounts(self.containers, self.strings, self.values, self.values)
        return self._exceeded(count_values(text, limits))

    def _exceeded(self, counts: JsonCounts) -> tuple[str, int] | None:
        if counts.containers > self.containers:
            return f"{counts.containers} objects and arrays or more", self.containers
        if counts.strings > self.strings:
            return f"{counts.strings} strings or more", self.strings
        if counts.values > self.values:
            return f"{counts.values} values or more", self.values
        return None


SMALL = FieldBound(size=16 * 1024)
"""A field that has no bound of its own."""
NO_BOUNDS: Mapping[str, FieldBound] = {}


def check_fields(body: bytes) -> None:
    """Raise `ApiError` (400) for a body of more than `MAX_FIELDS` fields."""
    if len(body) <= UNCOUNTED or count_at_most(body).members <= MAX_FIELDS:
        return
    anything = len(body)
    members = count_values(body, JsonCounts(anything, anything, anything, MAX_FIELDS)).members
    if members > MAX_FIELDS:
        message = f"The body has {members} fields or more; send at most {MAX_FIELDS}."
        raise bad_field(None, message, code="field_too_large")
