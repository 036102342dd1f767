"""Reads the content of a message: a string, or an array of text parts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

from server.api.fields.unknown import UnknownFields
from server.errors import bad_field


@dataclass(frozen=True, slots=True)
class TextParts:
    """Reads the text of messages, and knows which content parts of an endpoint are text."""

    kinds: Collection[str]
    """Values of `type` that mark a content part as text."""
    fields: Collection[str]
    """Accepted fields of a content part. Only `text` has an effect."""
    named: frozenset[str]
    """Known fields of a content part; an unknown field close to one of these is refused as a typo."""

    def read(self, content: object, path: str, unknown: UnknownFields) -> str:
        """Return the text of a message's `content`. Raises `ApiError` with the path of a part that is not
        text.
        """
        if isinstance(content, str):
            return content
        if content is None:
            raise bad_field(path, f"{path} is required.", code="missing_required_parameter")
        if not isinstance(content, list):
            raise bad_field(
                path, f"{path} must be a string or an array of content parts.", code="invalid_type"
            )
        parts = cast("list[object]", content)
        return "".join(self._part(part, f"{path}[{index}]", unknown) for index, part in enumerate(parts))

    def _part(self, part: object, path: str, unknown: UnknownFields) -> str:
        if not isinstance(part, dict):
            raise bad_field(
                path, f"{path} must be an object with the fields type and text.", code="invalid_type"
            )
        fields = cast("dict[str, object]", part)
        kind = fields.get("type")
        if kind not in self.kinds:
            shown = f"{kind[:40]!r} " if isinstance(kind, str) else ""
            raise bad_field(
                f"{path}.type",
                f"{path}.type: {shown}content parts are not supported; send text parts only.",
                code="unsupported_value",
            )
        text = fields.get("text")
        if not isinstance(text, str):
            raise bad_field(f"{path}.text", f"{path}.text must be a string.", code="invalid_type")
        for name, value in fields.items():
            if name not in self.fields and value is not None:
                unknown.meet(name, self.named, path)
        return text
